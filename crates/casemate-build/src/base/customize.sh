# Turns a bare Debian into the base. Run on the host by mmdebstrap, in its private mount and pid
# namespaces, with the new root as $1. NPM_VERSION and NPM_SHA512 are set in front of this text.
set -eu
root=$1
inside() { chroot "$root" "$@"; }

# Package sources: Debian's own. An operator's mirrors come with the site layer, not with the base.
rm -f "$root"/etc/apt/sources.list "$root"/etc/apt/sources.list.d/* "$root"/etc/apt/apt.conf.d/99mmdebstrap
cat >"$root/etc/apt/sources.list.d/debian.sources" <<'END'
Types: deb
URIs: http://deb.debian.org/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://deb.debian.org/debian-security
Suites: bookworm-security
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
END
cat >"$root/etc/apt/apt.conf.d/90casemate" <<'END'
Acquire::Languages "none";
END
# Kept from the bootstrap: the path rules, and no waiting for the disk. Added: no questions about
# changed settings files (there is nobody to answer).
mv "$root/etc/dpkg/dpkg.cfg.d/99mmdebstrap" "$root/etc/dpkg/dpkg.cfg.d/casemate"
echo force-confold >>"$root/etc/dpkg/dpkg.cfg.d/casemate"

# Shells. Every command of the SDKs is a login shell, so these files start no program at all.
cat >"$root/etc/profile" <<'END'
# PATH is left as it came: callers set it per command.
export PATH SHELL=/bin/bash
PS1='\w \$ '
for file in /etc/profile.d/*.sh; do
  [ -r "$file" ] && . "$file"
done
unset file
END
cat >"$root/etc/bash.bashrc" <<'END'
# For interactive shells.
case $- in *i*) ;; *) return ;; esac
shopt -s checkwinsize
PS1='\w \$ '
END
cat >"$root/etc/skel/.bashrc" <<'END'
# For interactive shells.
case $- in *i*) ;; *) return ;; esac
HISTCONTROL=ignoreboth
shopt -s histappend checkwinsize
PS1='\w \$ '
alias ls='ls --color=auto'
alias grep='grep --color=auto'
END
cat >"$root/etc/skel/.profile" <<'END'
# For login shells.
[ -d "$HOME/.local/bin" ] && PATH="$HOME/.local/bin:$PATH"
[ -n "$BASH_VERSION" ] && [ -r "$HOME/.bashrc" ] && . "$HOME/.bashrc"
:
END
rm -f "$root/etc/skel/.bash_logout"
cp "$root/etc/skel/.bashrc" "$root/root/.bashrc"
cp "$root/etc/skel/.profile" "$root/root/.profile"
chmod 0644 "$root/etc/profile" "$root/etc/bash.bashrc" "$root/etc/skel/.bashrc" \
  "$root/etc/skel/.profile" "$root/root/.bashrc" "$root/root/.profile"

# Users: `user` may become root without a password, as in E2B's sandboxes.
inside useradd --create-home --uid 1000 --user-group --groups sudo --shell /bin/bash user
chmod 0755 "$root/home/user"
inside passwd --quiet --delete user
inside passwd --quiet --delete root
cat >"$root/etc/sudoers.d/user" <<'END'
user ALL=(ALL:ALL) NOPASSWD: ALL
Defaults:user env_keep += "SSL_CERT_FILE NODE_EXTRA_CA_CERTS REQUESTS_CA_BUNDLE PIP_CERT"
Defaults:user env_keep += "http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY"
END
chmod 0440 "$root/etc/sudoers.d/user"

# npm: the host's own npm knows the operator's registry; without one, curl in the new root.
work=$root/tmp/casemate-npm
mkdir -p "$work"
if ! (command -v npm >/dev/null && cd "$work" && npm pack --silent "npm@$NPM_VERSION" >/dev/null); then
  if [ -r /etc/ssl/certs/ca-certificates.crt ]; then
    cp /etc/ssl/certs/ca-certificates.crt "$work/ca.crt"
  else
    cp "$root/etc/ssl/certs/ca-certificates.crt" "$work/ca.crt"
  fi
  inside curl --fail --silent --show-error --location --retry 3 --cacert /tmp/casemate-npm/ca.crt \
    --output "/tmp/casemate-npm/npm-$NPM_VERSION.tgz" \
    "https://registry.npmjs.org/npm/-/npm-$NPM_VERSION.tgz"
fi
echo "$NPM_SHA512  $work/npm-$NPM_VERSION.tgz" | sha512sum --check --quiet
npm=$root/usr/local/lib/node_modules/npm
mkdir -p "$npm"
tar -xzf "$work/npm-$NPM_VERSION.tgz" -C "$npm" --strip-components=1 --no-same-owner --no-same-permissions
rm -rf "$work" "$npm/man" "$npm/docs"
chmod 0755 "$npm/bin/npm-cli.js" "$npm/bin/npx-cli.js"
ln -s ../lib/node_modules/npm/bin/npm-cli.js "$root/usr/local/bin/npm"
ln -s ../lib/node_modules/npm/bin/npx-cli.js "$root/usr/local/bin/npx"
# Node.js is in /usr, which is Debian's; what `npm install --global` brings goes to /usr/local.
printf 'prefix=/usr/local\nupdate-notifier=false\n' >"$npm/npmrc"
inside npm --version >/dev/null
inside pip --version >/dev/null
rm -rf "$root/root/.npm" "$root/root/.cache"

# Writable by the sandbox's own user, so that global installs need no sudo.
mkdir -p "$root/code" "$root/usr/local/etc"
chmod -R a+rwX "$root/usr/local"
chmod 0777 "$root/code"

# Names: what the site layer overrides.
echo e2b.local >"$root/etc/hostname"
cat >"$root/etc/hosts" <<'END'
127.0.0.1 localhost
::1 localhost ip6-localhost ip6-loopback
127.0.1.1 e2b.local
END
: >"$root/etc/resolv.conf"
chmod 0644 "$root/etc/hostname" "$root/etc/hosts" "$root/etc/resolv.conf"

# Nothing of this run stays.
rm -rf "$root"/etc/machine-id "$root"/var/lib/dbus/machine-id "$root"/etc/*- "$root"/var/log/* \
  "$root"/var/cache/debconf/*-old "$root"/var/lib/dpkg/*-old "$root"/var/cache/ldconfig/aux-cache
mkdir -p "$root/var/log/apt"
