#!/bin/sh
# Makes sure that there is something to serve: imports what MLflow has promoted; trains a first release only
# where nothing is. A registry that cannot be asked is an error, no reason to train: this never replaces what
# was promoted. Later releases are `docker-compose run --rm train`.
set -eu
held_out=/app/data/held-out.parquet
python -m training train --if-none --held-out "$held_out" "$@"
# A release promoted from elsewhere left no held-out part here: `replay` then streams invented transactions.
[ -e "$held_out" ] || python -m training simulate --rows 20000 --output "$held_out"
