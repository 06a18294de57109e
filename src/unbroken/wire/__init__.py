"""The only sockets: one HTTP exchange at a time, with Unbroken's own failures.

    contract       what a driver may rely on
    http           the wire for threads            async_http     the wire for asyncio and trio
    loops/         wait for a socket: blocking, asyncio, trio
    stream         a socket during one exchange    monitor        its clock and deadlines   keepalive   its PINGs
    connection     proxy, TLS, HTTP without I/O:   handshakes     tls     http1     http2
    pool           idle connections                requests       what is written of a request
    inner          a second wire, over a transport of httpx2 or httpx

Everything but the loops, ``resolving`` and ``sockets`` is free of waits: it is handed bytes and the time.
"""
