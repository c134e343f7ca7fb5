#!/bin/sh
# Makes sure that there is something to serve: imports what MLflow has promoted, else trains a first release.
# Later releases are `docker-compose run --rm train`: this never replaces what was promoted.
set -eu
python -m training import || python -m training train --held-out /app/data/held-out.parquet "$@"
