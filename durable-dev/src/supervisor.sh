# Starts one private cluster and stops it when nobody uses it any more.
#
#   sh -c <this> supervisor DIRECTORY GENERATION LINGER SERVER [ARGUMENT ...]
#
# "Using it" is holding the writing end of a named pipe. The kernel closes that end when a process goes, even by
# kill -9, and it does so on every unix: flock(1) would do on Linux only. Reading the pipe therefore blocks while
# there are users and reports the end of the file when the last is gone. Every user writes one line when it comes.
#
# To stop is decided without a gap through which a newcomer could slip: the pipe is first renamed, so that nobody
# can come any more; then one more read tells whether somebody came before that (a line: go back to waiting) or not
# (the end of the file: stop). A newcomer who finds the pipe renamed waits until it is back or gone.
#
# The outer shell does nothing but wait for the server: a killed server that nobody reaped would stay as a zombie,
# and the next start would take its pid file for that of a living one.
cd "$1" || exit 1
in_use="in-use.$2"
closing="closing.$2"
linger=$3
shift 3
umask 077
trap '' HUP
mkfifo "$in_use" || exit 1
# Descriptor 3 exists for a moment only: opening the reading end alone would block until the first user comes.
exec 3<>"$in_use" 4<"$in_use" 3>&-

"$@" 4<&- &
server=$!

(
    while :; do
        while read -r _ <&4; do :; done
        sleep "$linger" 4<&-
        mv "$in_use" "$closing" 4<&-
        read -r _ <&4 || break
        mv "$closing" "$in_use" 4<&-
    done
    kill -INT "$server"
    # The reading end stays open until the server is gone: it tells newcomers that the stop is still under way.
    # Not for ever: where nobody reaps orphans, a zombie answers to its pid until the machine stops.
    looks=0
    while [ "$looks" -lt 200 ] && kill -0 "$server" 2>/dev/null; do
        sleep 0.1 4<&-
        looks=$((looks + 1))
    done
) &
watcher=$!
exec 4<&-

wait "$server"
# First the pipe, then its reader: a newcomer who finds neither name may start the next server at once.
rm -f "$in_use" "$closing"
kill "$watcher" 2>/dev/null
exit 0
