#!/bin/sh
# Writes a line every few seconds until it is told to stop. Watch it with `landfall app logs clock -f`.

every=5 # seconds
ticks=0

# The pause runs in the background, because a shell handles a signal only between commands or in `wait`.
trap 'kill "$pause" 2>/dev/null; echo "clock stops after $ticks ticks"; exit 0' TERM

echo "clock of version ${LANDFALL_VERSION:-dev} starts"
while :; do
    ticks=$((ticks + 1))
    echo "tick $ticks: it is $(date -u +%H:%M:%S) UTC"
    sleep "$every" &
    pause=$!
    wait "$pause"
done
