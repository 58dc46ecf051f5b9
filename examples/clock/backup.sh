#!/bin/sh
# Fails on purpose, so that you can see what people are told: there is no such directory. Write `target=/tmp`, commit
# and push, and after its next run they are told that it is well again.

target=/mnt/no-such-disk

if [ ! -d "$target" ]; then
    echo "cannot back up: $target is not there" >&2
    exit 1
fi
echo "backed up to $target" >&2
