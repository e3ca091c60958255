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
# Only what needs it: a change, also one to what is there already, copies a file into the template's
# layer, thousands of them from the base's /usr/local. An image may have no find.
find "$home" \( ! -user "$name" -o ! -group "$(id -gn "$name")" \) -exec chown -h "$name": {} + ||
  chown -R "$name": "$home" || exit 1
mkdir -p /code /usr/local
find /usr/local /code ! -type l \( ! -perm -666 -o -type d ! -perm -777 \) -exec chmod 777 {} + ||
  chmod -R 777 /usr/local /code || exit 1
# A package that is half configured would fail in every sandbox instead of here.
if command -v dpkg >/dev/null 2>&1; then
  DEBIAN_FRONTEND=noninteractive dpkg --configure -a || exit 1
fi
# Every sandbox begins with an empty one.
find /tmp -xdev -mindepth 1 -delete 2>/dev/null
