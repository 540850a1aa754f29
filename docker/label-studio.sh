#!/bin/sh
# Label Studio takes secrets from its environment alone: here they are read from the files that containers are given.
set -eu

secret() {
  if [ ! -r "$1" ]; then
    echo "label-studio.sh: no secret in $1; make them with docker/secrets.sh" >&2
    exit 2
  fi
  cat "$1"
}

secrets=${SECRETS:-/run/secrets}
LABEL_STUDIO_PASSWORD=$(secret "$secrets/label_studio_password")
LABEL_STUDIO_USER_TOKEN=$(secret "$secrets/label_studio_token")
POSTGRE_PASSWORD=$(secret "$secrets/database_password")
export LABEL_STUDIO_PASSWORD LABEL_STUDIO_USER_TOKEN POSTGRE_PASSWORD
exec label-studio start --no-browser --internal-host "${INTERNAL_HOST:-0.0.0.0}" --port "${INTERNAL_PORT:-8080}"
