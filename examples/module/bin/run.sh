#!/bin/sh
. "$(dirname "$0")/common.sh"
say "running"
