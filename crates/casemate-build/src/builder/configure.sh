# The last touches before sandboxes begin with these files. Run as root.
set -u
name=user
if ! id -u "$name" >/dev/null 2>&1; then
  useradd --create-home --shell /bin/bash "$name" || exit 1
fi
home=$(getent passwd "$name" | cut -d: -f6)
case $home in
  "" | /) echo "the home of '$name' cannot be '$home'"; exit 1 ;;
esac
mkdir -p "$home" && [ ! -d /etc/skel ] || cp -rn /etc/skel/. "$home"/ 2>/dev/null
#administrator
chown -R "$name": "$home" || exit 1
mkdir -p /code /usr/local
chmod -R 777 /usr/local /code || exit 1
# A package that is half configured would fail in every sandbox instead of here.
if command -v dpkg >/dev/null 2>&1; then
  DEBIAN_FRONTEND=noninteractive dpkg --configure -a || exit 1
fi
# Every sandbox begins with an empty one.
find /tmp -xdev -mindepth 1 -delete 2>/dev/null
