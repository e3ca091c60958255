# Puts into an image what every sandbox is expected to have. Run as root by /bin/sh, with the network
# of a build. What is there already is left as it is, and when nothing is missing no server is asked.
set -u

# Images that are made of nothing have none, and others one that apt cannot use.
for dir in /tmp /var/tmp; do
  mkdir -p "$dir" && chmod 1777 "$dir" || exit 1
done

id= like= name=
release=/etc/os-release
[ -r "$release" ] || release=/usr/lib/os-release
if [ -r "$release" ]; then
  # Read and not sourced: it is a file of somebody's image.
  while IFS= read -r line; do
    value=${line#*=}
    case $value in
      \"*\") value=${value#\"} value=${value%\"} ;;
      \'*\') value=${value#\'} value=${value%\'} ;;
    esac
    case $line in
      ID=*) id=$value ;;
      ID_LIKE=*) like=$value ;;
    esac
  done <"$release"
fi

family=
case $id in
  rhel | ol | amzn)
    echo "ERROR: base image distribution ID='$id' is not supported."
    exit 1
    ;;
esac
for name in $id $like; do
  case $name in
    debian | ubuntu) family=debian ;;
    fedora | centos | rocky | almalinux) family=fedora ;;
    arch | archlinux) family=arch ;;
    alpine) family=alpine ;;
    *) continue ;;
  esac
  [ "$name" = "$id" ] || echo "WARNING: '$id' is not known; it is treated like '$name'"
  break
done
if [ -z "$family" ]; then
  echo "ERROR: unsupported base image distribution: ID='$id'."
  exit 1
fi

# Says which packages of "$@" are missing, by a test command in $installed.
missing() {
  for package in "$@"; do
    $installed "$package" >/dev/null 2>&1 || printf ' %s' "$package"
  done
}
# Ends where "$1", which would install "$2", is not in the image.
needs() {
  command -v "$1" >/dev/null 2>&1 && return
  echo "ERROR: the image has no package manager ($1), and what every sandbox needs is not in it: $2"
  exit 1
}
debian_has() { dpkg-query -W -f '${Status}' "$1" | grep -q '^install ok installed'; }

case $family in
  debian)
    installed=debian_has
    wanted=$(missing bash ca-certificates curl git iproute2 iputils-ping jq less passwd socat sudo)
    if [ -n "$wanted" ]; then
      needs apt-get "$wanted"
      export DEBIAN_FRONTEND=noninteractive
      apt-get update || exit 1
      # What a loss of power takes is built again: dpkg needs not wait for the disk.
      apt-get -o Dpkg::Options::=--force-unsafe-io install -y --no-install-recommends $wanted || exit 1
      rm -rf /var/lib/apt/lists/*
    fi
    ;;
  fedora)
    installed='rpm -q --whatprovides'
    wanted=$(missing bash ca-certificates curl git iproute iputils jq less passwd shadow-utils socat sudo tar)
    if [ -n "$wanted" ]; then
      manager=dnf
      command -v dnf >/dev/null 2>&1 || manager=yum
      needs "$manager" "$wanted"
      $manager install -y $wanted || exit 1
      $manager clean all
    fi
    ;;
  arch)
    installed='pacman -Q'
    wanted=$(missing bash ca-certificates curl git iproute2 iputils jq less shadow socat sudo)
    [ -z "$wanted" ] || needs pacman "$wanted"
    [ -z "$wanted" ] || pacman -Syu --noconfirm --needed $wanted || exit 1
    ;;
  alpine)
    installed='apk info -e'
    wanted=$(missing bash ca-certificates curl git iproute2 iputils jq less shadow socat sudo util-linux-misc)
    [ -z "$wanted" ] || needs apk "$wanted"
    [ -z "$wanted" ] || apk add --no-cache $wanted || exit 1
    ;;
esac

# A login shell with a prompt that says where it is, as in E2B's sandboxes.
mkdir -p /etc/profile.d
cat >/etc/profile.d/e2b.sh <<'PROFILE'
export SHELL=/bin/bash
PS1='\w \$ '
PROFILE
# sudo refuses one that others may write.
[ -f /etc/sudoers ] || printf 'root ALL=(ALL:ALL) ALL\n' >/etc/sudoers
chmod 0440 /etc/sudoers
