#!/bin/sh
# docker/secrets.sh: makes each secret that is not there yet, in docker/secrets. What is there stays.
set -eu

folder=${1:-$(dirname "$0")/secrets}
mkdir -p "$folder"
chmod 700 "$folder" # on this machine for its owner alone; in a container, for whom it runs as
for name in database_password label_studio_password label_studio_token backend_password webhook_secret; do
  if [ ! -s "$folder/$name" ]; then
    head -c 20 /dev/urandom | od -An -tx1 | tr -d ' \n' > "$folder/$name"
    chmod 444 "$folder/$name"
    echo "made $folder/$name"
  fi
done
