#!/bin/sh
# Install the real clients of tests/real_clients into .agents: the pinned npm packages, and aider in a virtual environment.
#
#   sh tests/real_clients/install.sh
#
# It may be run again: what is there in the right versions stays. PYTHON=... chooses the interpreter for aider (3.10 to
# 3.12). It takes 1.4 GB for Node and 0.7 GB for aider.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
target=$(cd "$here/../.." && pwd)/.agents
python=${PYTHON:-$(for name in python3.11 python3.12 python3.10 python3; do command -v "$name" && break; done)}
node_done=$target/node_modules/made
aider_done=$target/aider/made

mkdir -p "$target"
echo '*' >"$target/.gitignore"

if cmp -s "$here/package.json" "$node_done"; then
    echo "· node: up to date"
else
    echo "· node: installing the packages of tests/real_clients/package.json"
    cp "$here/package.json" "$target/package.json"
    # Only two of them need their scripts, which put a binary from another package in place; others would compile.
    npm install --prefix "$target" --no-audit --no-fund --no-package-lock --ignore-scripts --loglevel error >/dev/null
    npm rebuild --prefix "$target" --loglevel error @anthropic-ai/claude-code opencode-ai >/dev/null
    cp "$here/package.json" "$node_done"
fi

if cmp -s "$here/requirements-aider.txt" "$aider_done"; then
    echo "· aider: up to date"
else
    echo "· aider: installing tests/real_clients/requirements-aider.txt"
    test -x "$target/aider/bin/python" || "$python" -m venv "$target/aider"
    "$target/aider/bin/python" -m pip -qq --disable-pip-version-check install --no-deps -r "$here/requirements-aider.txt"
    cp "$here/requirements-aider.txt" "$aider_done"
fi

echo "· done: .agents"
