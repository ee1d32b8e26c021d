#!/bin/sh
# number.sh NAME VALUE USAGE: exit code 2, and the usage, unless the value is empty or a number from 1 to 999999999.
case $2 in
    '') exit 0 ;;
    0* | *[!0-9]* | ??????????*) ;;
    *) exit 0 ;;
esac
echo "$1=$2: a number from 1 to 999999999 is wanted" >&2
echo "usage: $3" >&2
exit 2
