#!/bin/sh
# Fills corpus/ with what the project has: manifests, configurations, the forges' deliveries.
set -eu
cd "$(dirname "$0")"
mkdir -p corpus/manifest corpus/config corpus/hook corpus/signature
number=0
for file in $(find ../examples -name landfall.yaml); do
  number=$((number + 1)); cp "$file" "corpus/manifest/seed-$number"
done
for file in ../config/*.yaml; do
  cp "$file" "corpus/config/seed-$(basename "$file")"
done
for body in ../tests/data/hooks/*/*.json; do
  number=$((number + 1))
  # A byte that chooses the forge, then the body.
  { printf "\\$(printf '%03o' $((number % 9)))"; cat "$body"; } > "corpus/hook/seed-$number"
  { cat "${body%.json}.headers"; echo; cat "$body"; } > "corpus/signature/seed-$number"
done
