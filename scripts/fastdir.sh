#!/bin/sh
# Prints a folder in memory for the files of tests, which sync them thousands of times:
# /dev/shm where it has 4 GB of room and may hold programs. Else it prints nothing.
dir=/dev/shm
[ -w "$dir" ] || exit 0
awk -v dir="$dir" '$2 == dir && $4 ~ /(^|,)noexec(,|$)/ { found = 1 } END { exit found }' /proc/mounts || exit 0
df -Pk "$dir" | awk -v dir="$dir" 'NR == 2 && $4 > 4000000 { print dir }'
