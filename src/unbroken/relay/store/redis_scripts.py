"""The scripts that Redis or Valkey runs: each one is atomic, and may be sent a second time if its answer was lost.

What is kept of a turn, below ``unbroken:1:``, where 1 is the version of this layout:

=======================  ===========================================================================================
``turn:ID``, a hash      ``info`` (JSON), ``owner``, ``request``, ``epoch``, ``at`` (bytes so far), ``ending``,
                         ``left``, ``claimed`` (until when), ``read`` (when it was last read, in milliseconds),
                         ``taken`` (over by another turn)
``events:ID``, a stream  its bytes; each entry's id is the position behind it: ``0-1`` the head, ``BYTES-2`` bytes,
                         ``BYTES-3`` the end
``lease:ID``             who writes it
``owner:DIGEST``         a sorted set: the turns of an owner
``request:DIGEST``       a sorted set: the turns of a request whose client has left
``running:DIGEST``       a sorted set: the turns of a request that run, and whose client has not left
``key:DIGEST``           the turn that was last begun under a key
``removed``              a sorted set: turns that were deleted while they ran, for their writers
``shown:NAME``           what a relay shows to the others
``shown``                a sorted set: the names of these relays
``watched``              there while somebody reads that
=======================  ===========================================================================================

``unbroken:layout`` says which version is in use. Every key has an expiry: the sorted sets that of the last turn in them
(their scores, in milliseconds), ``unbroken:layout`` a lease more.
"""

from __future__ import annotations

from unbroken.relay.store.contract import MAX_LISTED, MAX_PUBLISHED, MAX_PUBLISHERS, WATCHED

LAYOUT = 1

PREFIX = f"unbroken:{LAYOUT}:"

LAYOUT_KEY = "unbroken:layout"

FOR_EVER = 10**15
"""Milliseconds since the epoch: later than any turn is kept."""

_COMMON = f"""
local prefix = '{PREFIX}'
local function now()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end
local function number(value) return string.format('%.0f', value) end
local function stay(key, ms)
  if redis.call('PTTL', key) < ms then redis.call('PEXPIRE', key, ms) end
end
local function refused(turn, epoch)
  local current = redis.call('HGET', turn, 'epoch')
  if not current then
    if redis.call('ZSCORE', prefix .. 'removed', string.sub(turn, #prefix + 6)) then return 'removed' end
    return 'gone'
  end
  if current ~= epoch then return 'stale' end
  return false
end
local function expire(name)
  local last = redis.call('ZREVRANGE', name, 0, 0, 'WITHSCORES')
  if last[2] then redis.call('PEXPIREAT', name, number(tonumber(last[2]))) end
end
local function index(name, id, ms)
  local at = now()
  redis.call('ZREMRANGEBYSCORE', name, '-inf', number(at))
  redis.call('ZADD', name, number(at + ms), id)
  redis.call('ZREMRANGEBYRANK', name, 0, -1 - {MAX_LISTED})
  expire(name)
end
local function unindex(name, id)
  if redis.call('ZREM', name, id) == 1 then expire(name) end
end
local function stay_indexed(id, ms, marker, only_longer)
  local known = redis.call('HMGET', prefix .. 'turn:' .. id, 'owner', 'request', 'key')
  stay('{LAYOUT_KEY}', marker)
  for kind, position in pairs({{['owner:'] = 1, ['request:'] = 2, ['running:'] = 2}}) do
    local name = prefix .. kind .. (known[position] or '')
    local score = redis.call('ZSCORE', name, id)
    if score and not (only_longer and tonumber(score) > now() + ms) then index(name, id, ms) end
  end
  local key = prefix .. 'key:' .. (known[3] or '')
  if redis.call('GET', key) == id and not (only_longer and redis.call('PTTL', key) > ms) then
    redis.call('PEXPIRE', key, ms)
  end
end
"""

BEGIN = (
    _COMMON
    + f"""
local id, info, owner, request, key, holder, lease, ms, marker = unpack(ARGV)
ms = tonumber(ms)
local layout = redis.call('GET', '{LAYOUT_KEY}')
if layout and layout ~= '{LAYOUT}' then return 'layout' end
redis.call('SET', '{LAYOUT_KEY}', '{LAYOUT}', 'KEEPTTL')
stay('{LAYOUT_KEY}', tonumber(marker))
if redis.call('EXISTS', KEYS[1]) == 1 then
  local known, held = redis.call('HMGET', KEYS[1], 'epoch', 'info'), redis.call('GET', KEYS[2])
  if known[1] ~= '1' or known[2] ~= info or (held and held ~= holder) then return 'stale' end
  return 'ok'
end
redis.call('HSET', KEYS[1], 'info', info, 'owner', owner, 'request', request, 'key', key, 'epoch', 1, 'at', 0)
redis.call('PEXPIRE', KEYS[1], ms)
redis.call('SET', KEYS[2], holder, 'PX', lease)
if owner ~= '' then index(prefix .. 'owner:' .. owner, id, ms) end
if request ~= '' then index(prefix .. 'running:' .. request, id, ms) end
if key ~= '' then redis.call('SET', prefix .. 'key:' .. key, id, 'PX', ms) end
return 'ok'
"""
)

WRITE_HEAD = (
    _COMMON
    + """
local no = refused(KEYS[1], ARGV[1])
if no then return no end
if redis.call('EXISTS', KEYS[2]) == 1 then return 'ok' end
redis.call('XADD', KEYS[2], '0-1', 'h', ARGV[2])
redis.call('PEXPIRE', KEYS[2], ARGV[3])
return 'ok'
"""
)

APPEND = (
    _COMMON
    + """
local no = refused(KEYS[1], ARGV[1])
if no then return no end
local known = redis.call('HMGET', KEYS[1], 'at', 'ending')
local at, from, data = tonumber(known[1]), tonumber(ARGV[2]), ARGV[3]
if from > at then return 'gone' end
data = string.sub(data, at - from + 1)
if #data == 0 then return 'ok' end
if known[2] then return 'stale' end
at = number(at + #data)
redis.call('XADD', KEYS[2], at .. '-2', 'd', data)
redis.call('HSET', KEYS[1], 'at', at)
stay(KEYS[1], tonumber(ARGV[4]))
stay(KEYS[2], tonumber(ARGV[4]))
return 'ok'
"""
)

LEAVE = (
    _COMMON
    + """
local no = refused(KEYS[1], ARGV[1])
if no then return no end
local id, ms = ARGV[2], tonumber(ARGV[3])
redis.call('HSET', KEYS[1], 'left', 1)
redis.call('HDEL', KEYS[1], 'claimed')
local request = redis.call('HGET', KEYS[1], 'request')
if request and request ~= '' then
  unindex(prefix .. 'running:' .. request, id)
  index(prefix .. 'request:' .. request, id, ms)
end
return 'ok'
"""
)

CLOSE = (
    _COMMON
    + """
local no = refused(KEYS[1], ARGV[1])
if no then return no end
local id, ending, size, ms, marker = ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])
local known = redis.call('HMGET', KEYS[1], 'at', 'ending')
if known[2] then return 'ok' end
if size ~= '' and known[1] ~= size then return 'gone' end
redis.call('XADD', KEYS[2], known[1] .. '-3', 'e', ending)
redis.call('HSET', KEYS[1], 'ending', ending, 'taken', ARGV[7] or '')
redis.call('PEXPIRE', KEYS[1], ms)
redis.call('PEXPIRE', KEYS[2], ms)
redis.call('DEL', KEYS[3])
unindex(prefix .. 'running:' .. (redis.call('HGET', KEYS[1], 'request') or ''), id)
stay_indexed(id, ms, marker, false)
return 'ok'
"""
)

RENEW = (
    _COMMON
    + """
local no = refused(KEYS[1], ARGV[1])
if no then return no end
local id, holder, lease, ms, marker = ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])
redis.call('SET', KEYS[3], holder, 'PX', lease)
stay(KEYS[1], ms)
stay(KEYS[2], ms)
stay_indexed(id, ms, marker, false)
return 'ok'
"""
)

LEASE = (
    _COMMON
    + """
local holder, lease = ARGV[1], ARGV[2]
if redis.call('HEXISTS', KEYS[1], 'epoch') == 0 or redis.call('HEXISTS', KEYS[1], 'ending') == 1 then return -1 end
if redis.call('SET', KEYS[2], holder, 'NX', 'PX', lease) then return redis.call('HINCRBY', KEYS[1], 'epoch', 1) end
if redis.call('GET', KEYS[2]) ~= holder then return -1 end
redis.call('PEXPIRE', KEYS[2], lease)
return tonumber(redis.call('HGET', KEYS[1], 'epoch'))
"""
)

HAND_OVER = (
    _COMMON
    + """
local no = refused(KEYS[1], ARGV[1])
if no then return no end
redis.call('DEL', KEYS[2])
return 'ok'
"""
)

CLAIM = (
    _COMMON
    + """
for place, kind in ipairs({'request:', 'running:'}) do
  for _, id in ipairs(redis.call('ZRANGE', KEYS[place], 0, -1)) do
    local turn = prefix .. 'turn:' .. id
    local known = redis.call('HMGET', turn, 'request', 'left', 'claimed', 'ending')
    local fits = known[1] and kind .. known[1] == string.sub(KEYS[place], #prefix + 1)
    local has_left = kind == 'request:' and known[2]
    local is_abandoned = not known[4] and redis.call('EXISTS', prefix .. 'lease:' .. id) == 0
    if not (fits and (not known[4] or (has_left and known[4] == 'whole'))) then
      unindex(KEYS[place], id)
    elseif (tonumber(known[3]) or 0) <= now() and (has_left or is_abandoned) then
      redis.call('HSET', turn, 'claimed', number(now() + tonumber(ARGV[1])))
      return {id, is_abandoned and 1 or 0}
    end
  end
end
return false
"""
)

RELEASE = """
redis.call('HDEL', KEYS[1], 'claimed')
return 'ok'
"""

COLLECTED = f"""
if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('HSET', KEYS[1], 'claimed', '{FOR_EVER}') end
return 'ok'
"""

TOUCH = (
    _COMMON
    + """
if redis.call('EXISTS', KEYS[1]) == 0 then return 'gone' end
redis.call('HSET', KEYS[1], 'read', number(now()))
local claimed = tonumber(redis.call('HGET', KEYS[1], 'claimed'))
if claimed then redis.call('HSET', KEYS[1], 'claimed', number(math.max(claimed, now() + tonumber(ARGV[4])))) end
local ms, marker = tonumber(ARGV[2]), tonumber(ARGV[3])
for _, key in ipairs(KEYS) do stay(key, ms) end
stay_indexed(ARGV[1], ms, marker, true)
return 'ok'
"""
)

FIND = (
    _COMMON
    + """
local found = redis.call('HMGET', KEYS[1], 'info', 'at', 'ending', 'left', 'read', 'taken')
if not found[1] then return false end
local unread = found[5] and now() - tonumber(found[5]) or -1
return {found[1], found[2] or '', found[3] or '', found[4] or '', unread, redis.call('EXISTS', KEYS[2]), found[6] or ''}
"""
)

PUBLISH = (
    _COMMON
    + """
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
index(KEYS[1], ARGV[1], tonumber(ARGV[3]))
return 'ok'
"""
)

PUBLISHED = (
    _COMMON
    + f"""
redis.call('SET', KEYS[2], '1', 'PX', {WATCHED * 1000:.0f})
local found = {{}}
for _, name in ipairs(redis.call('ZREVRANGEBYSCORE', KEYS[1], '+inf', number(now()), 'LIMIT', 0, {MAX_PUBLISHERS})) do
  local key = prefix .. 'shown:' .. name
  local size = redis.pcall('STRLEN', key)
  if type(size) == 'number' and size <= {MAX_PUBLISHED} then table.insert(found, redis.call('GET', key) or '') end
end
return found
"""
)

REMOVE = (
    _COMMON
    + """
local runs = redis.pcall('HEXISTS', KEYS[2], 'epoch') == 1 and redis.pcall('HEXISTS', KEYS[2], 'ending') == 0
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('DEL', KEYS[2], KEYS[3], KEYS[4])
if runs and ARGV[2] ~= '' then index(prefix .. 'removed', ARGV[1], tonumber(ARGV[2])) end
return 'ok'
"""
)
