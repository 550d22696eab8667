#!/bin/bash
# Trains on machines that may be taken away, with its states in a bucket:
#
#   CHECKPOINTS=s3://bucket/incident examples/spot.sh --study incident --timesteps 44000
#
# Run it at the start of every machine (cloud-init, a systemd unit). SIGTERM, sent some seconds before the
# machine goes, makes the run save and leave; the next machine resumes from the bucket. Exits with the run's
# code: 0 done, 4 saved with more to do. Save often enough for what is sent nothing: checkpoint_freq.
: "${CHECKPOINTS:?set it to a URL, for example s3://bucket/run}"

arzbench run --checkpoints "$CHECKPOINTS" "$@" &
run=$!
told=
trap 'told=1; kill -TERM "$run"' TERM INT
wait "$run"; code=$?
while [ -n "$told" ]; do # a trap ends `wait`: the run is still saving
    told=
    wait "$run"; code=$?
done
exit "$code"
