internal import Glibc
import MobulaCore

/// Whether this process is root, be it only in its user namespace.
var isRoot: Bool { geteuid() == 0 }

/// What runs in namespaces: command lines and scripts.
enum NamespaceScripts {
  /// A command line that makes an isolation of this bench's own. When `unshare` dies, so does
  /// the process that it starts, and with that one, as init, everything in the PID namespace.
  static func unshare(root: Bool, _ options: String...) throws(MobulaError) -> [String] {
    [try SystemTool.unshare.path()] + (root ? [] : ["--user", "--map-root-user"])
      + ["--net", "--mount", "--pid", "--ipc", "--fork", "--kill-child", "--mount-proc"] + options + ["--"]
  }

  /// `nsenter`'s arguments for some namespaces of `process`.
  static func enter(_ process: Int32, _ namespaces: String...) -> [String] {
    ["-t", "\(process)"] + namespaces + ["--"]
  }

  /// Everything that an emulated host needs of the kernel, once.
  static let trial = ShellScript(
    """
    mount -t tmpfs mobula /dev/shm
    ip link set lo up
    ip link add br0 type bridge
    ip link add v0 type veth peer name v1
    ip link set v0 master br0 up
    tc qdisc add dev v0 root tbf rate 840mbit burst 512k latency 20ms
    unshare --net --mount --pid --ipc --uts --fork --kill-child --mount-proc true
    """)

  /// `bridge ADDRESS/LENGTH`. IPv6 is switched off so that its chatter isn't counted.
  static let bridge = ShellScript(
    """
    echo 1 2>/dev/null >/proc/sys/net/ipv6/conf/all/disable_ipv6 || :
    echo 1 2>/dev/null >/proc/sys/net/ipv6/conf/default/disable_ipv6 || :
    ip link set lo up
    ip link add br0 type bridge
    ip addr add "$1" dev br0
    ip link set br0 up
    """)

  /// `hostInit STAGE NAME DIRECTORY PATH…`: the init of a host. Private `/tmp`, `/run` and `/dev/shm`
  /// are made ready on a tmpfs at STAGE, with the PATHs to keep in their places, while these can still
  /// be seen; only then are the system's own covered. Says its own PID in the outer PID namespace,
  /// which the outer `/proc` still shows at the start, and from then on reaps orphans.
  static let hostInit = ShellScript(
    """
    read -r pid rest </proc/self/stat
    mount -t proc proc /proc
    stage=$1 name=$2 directory=$3
    shift 3
    mount -t tmpfs -o mode=0755 mobula "$stage"
    mkdir "$stage/run"
    mkdir -m 1777 "$stage/tmp" "$stage/shm"
    for path in "$@"; do
      case $path in
      /dev/shm/*) target=$stage/shm/${path#/dev/shm/} ;;
      *) target=$stage$path ;;
      esac
      if [ -d "$path" ]; then
        mkdir -p "$target"
      else
        mkdir -p "${target%/*}"
        : >"$target"
      fi
      mount --rbind "$path" "$target"
      mount -o remount,bind,ro "$target" 2>/dev/null || :
    done
    mount --rbind "$stage/shm" /dev/shm
    mount --rbind "$stage/run" /run
    mount --rbind "$stage/tmp" /tmp
    mkdir -p "$directory"
    hostname "$name" 2>/dev/null || :
    echo 1 2>/dev/null >/proc/sys/net/ipv6/conf/all/disable_ipv6 || :
    echo 1 2>/dev/null >/proc/sys/net/ipv6/conf/default/disable_ipv6 || :
    ip link set lo up
    echo "up $pid"
    exec >/dev/null 2>&1
    sleep infinity &
    wait
    """)

  /// `cable INTERFACE PID ADDRESS/LENGTH RATE`: a veth pair from the bridge to the host whose init is PID,
  /// shaped by a token bucket at either end: what the host receives, and what it sends. Unshaped for an empty RATE.
  static let cable = ShellScript(
    """
    ip link add "$1" type veth peer name eth0 netns "$2"
    ip link set "$1" master br0 up
    [ -z "$4" ] || tc qdisc add dev "$1" root tbf rate "$4" burst 512k latency 20ms
    exec nsenter -t "$2" -n sh -euc '
      ip addr add "$1" dev eth0
      ip link set eth0 up
      [ -z "$2" ] || tc qdisc add dev eth0 root tbf rate "$2" burst 512k latency 20ms
    ' sh "$3" "$4"
    """)

  /// `limit INTERFACE PID RATE`: another rate for what `cable` has shaped.
  static let limit = ShellScript(
    """
    tc qdisc change dev "$1" root tbf rate "$3" burst 512k latency 20ms
    exec nsenter -t "$2" -n tc qdisc change dev eth0 root tbf rate "$3" burst 512k latency 20ms
    """)

  /// `privateTemporary DIRECTORY PROGRAM ARGUMENT…`: becomes PROGRAM, for which DIRECTORY is `/tmp`.
  static let privateTemporary = ShellScript(
    """
    exec 9<"$2"
    mount --bind "$1" /tmp
    shift 2
    exec /proc/self/fd/9 "$@"
    """)

  /// `link INTERFACE up|down`.
  static let link = ShellScript(#"ip link set "$1" "$2""#)

  /// `unlink INTERFACE…`: deletes what there is of them.
  static let unlink = ShellScript(
    """
    for interface in "$@"; do ip link del "$interface" 2>/dev/null || :; done
    """)
}
