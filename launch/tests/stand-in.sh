#!/usr/bin/env bash
# Stands in for QEMU in the launcher's tests: finds the log's socket, the files' path and the kernel's command line
# among its arguments, keeps the arguments, and goes on with the file `stand-in` beside the name it was called by.
if [ "$1" = --version ]; then
    echo "QEMU emulator version 0"
    exit 0
fi
here=$(dirname "$0")
# What follows is for the file that is read at the end.
# shellcheck disable=SC2034
{ log=2 files=/dev/null append='' image='' accelerator=''; }
previous=
for argument; do
    # shellcheck disable=SC2034
    case "$previous" in
        -append) append=$argument ;;
        -accel) accelerator=$argument ;;
        -initrd) image=$argument ;;
    esac
    # shellcheck disable=SC2034
    case "$argument" in
        socket,id=log,fd=*) log=${argument#socket,id=log,fd=} ;;
        file,id=files,path=*) files=${argument#file,id=files,path=} ;;
    esac
    previous=$argument
done
printf '%s\n' "$@" >"$here/arguments.tmp" && mv "$here/arguments.tmp" "$here/arguments"
# shellcheck source=/dev/null
. "$here/stand-in"
