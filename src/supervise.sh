#!/bin/sh
# Keeps a program running: the control plane in its container (src/Dockerfile). Killed, it is started again, while the
# adapters, which are sessions of their own, go on; were it the container's first process, they would end with it.
#
# Usage: supervise.sh PROGRAM [ARGUMENT...]
# TERM, INT and HUP reach the program as TERM, and its end is then the end. So is an end in order (0) and wrong usage (2).

wait_now=0
last_wait=10
steady=30
child=
stopping=
signals=0

# Not the signal itself: a shell has its background programs ignore INT.
stop() {
  stopping=yes
  signals=$((signals + 1))
  [ -z "$child" ] || kill -s TERM "$child" 2>/dev/null
}
trap stop TERM INT HUP

# A signal ends the wait and not the program; 127: its end was told already, just before the signal.
wait_for() {
  told=
  while :; do
    before=$signals
    wait "$1"
    code=$?
    if [ "$code" -eq 127 ] && [ -n "$told" ]; then return "$told"; fi
    [ "$signals" -ne "$before" ] || return "$code"
    told=$code
  done
}

while :; do
  began=$(date +%s)
  "$@" &
  child=$!
  # A signal that came before there was a child.
  [ -z "$stopping" ] || kill -s TERM "$child" 2>/dev/null
  wait_for "$child"
  code=$?
  child=
  if [ -n "$stopping" ] || [ "$code" -eq 0 ] || [ "$code" -eq 2 ]; then exit "$code"; fi
  [ $(($(date +%s) - began)) -lt "$steady" ] || wait_now=0
  echo "supervise: $1 has ended (code $code); starting it again in ${wait_now} s" >&2
  # In the background, so that a signal need not wait for it.
  sleep "$wait_now" &
  nap=$!
  wait "$nap"
  if [ -n "$stopping" ]; then
    kill "$nap" 2>/dev/null
    exit "$code"
  fi
  wait_now=$((wait_now * 2 + 1))
  [ "$wait_now" -le "$last_wait" ] || wait_now=$last_wait
done
