#!/bin/sh
# debpackage.sh WORK: installs, upgrades and removes the packages WORK/1.deb and WORK/2.deb
# on a copy of this system, whose changes are in memory, and mounts WORK/image meanwhile.
# It runs as root in a mount namespace and a PID namespace of its own. What purging left
# of the changes goes to WORK/left.
set -eu
export LC_ALL=C PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive
unset HOME XDG_CACHE_HOME XDG_RUNTIME_DIR TMPDIR DISPLAY || :

fail() { echo "FAIL: $*" && exit 1; }
is() { [ "$2" = "$1" ] || fail "$3: $2, want $1"; }
quietly() { "$@" >/tmp/said 2>&1 || { cat /tmp/said && fail "$*"; }; }

if [ "${2-}" != inside ]; then # outside of the copy
	mount -t tmpfs -o mode=0755 tmpfs "$1/system"
	cd "$1/system"
	mkdir up work root
	mount -t overlay -o lowerdir=/,upperdir="$PWD/up",workdir="$PWD/work" overlay root
	mount -t proc proc root/proc
	mount --rbind /dev root/dev
	mount -t tmpfs tmpfs root/tmp
	mount -t tmpfs tmpfs root/run
	rm -rf root/etc/imgfs root/var/cache/imgfs # of this system's own
	rm -f root/var/lib/man-db/auto-update # man's list of manuals takes long, and man finds them without
	cp -a "$1/1.deb" "$1/2.deb" "$1/image" "$0" root/tmp
	chroot root sh "/tmp/$(basename "$0")" /tmp inside
	umount root/tmp root/run
	umount root/proc
	umount -l root/dev
	umount root
	cp -a up "$1/left"
	exit
fi

cd /
package() { # of a container's system that has no manuals and documents, these too
	quietly dpkg --path-include='*' --force-unsafe-io "$@"
}
works() { # everything that package $1 brings
	is "imgfs v$1" "$(imgfs version)" "imgfs version"
	is "$1-1" "$(dpkg-query -W -f '${Version}' imgfs)" "the version to dpkg"
	[ -z "$(dpkg --verify imgfs)" ] || fail "dpkg --verify: $(dpkg --verify imgfs)"
	if command -v man >/dev/null; then
		is /usr/share/man/man1/imgfs-mount.1.gz "$(man -w imgfs-mount)" "man -w"
		man mount.fuse.imgfs | grep -q 'imgfs mount' || fail "the helper's manual is not that of mount"
	fi
	zcat /usr/share/doc/imgfs/modules.gz | grep -q '^github.com/hanwen/go-fuse/v2 ' || fail "there are no licenses of modules"
	zcat /usr/share/man/man1/imgfs-mount.1.gz | grep -q 'imgfs mount' || fail "the manual has no imgfs mount"
}
completes() { # in every shell
	bash -c '. /usr/share/bash-completion/bash_completion; _comp_load imgfs || _completion_loader imgfs; complete -p imgfs' >/tmp/said 2>&1 || fail "bash completes nothing: $(cat /tmp/said)"
	is _imgfs "$(zsh -fc 'autoload -U compinit && compinit -D -u && print $_comps[imgfs]')" "what completes in zsh"
	fish -c 'complete -C "imgfs umou"' | grep -q '^umount' || fail "fish does not complete umount"
}
serves() { # the mount, by the process that served it before
	is "hello" "$(cat /mnt/etc/hello)" "a file of the mount, $1"
	kill -0 "$server" || fail "$1, another process serves"
}
finds() { # the process that serves the mount: it is of the program that is installed
	server=$(grep -lsx imgfs /proc/[0-9]*/comm | tr -dc '0-9\n')
	[ -n "$server" ] || fail "$1, nobody serves"
	cmp "/proc/$server/exe" /usr/bin/imgfs || fail "$1, another program serves"
	serves "$1"
}
mounts() { # IMAGE on /mnt, as the system does it
	mount -t fuse.imgfs -o "ro,$2" "$1" /mnt
	finds "after mounting"
}

package -i /tmp/1.deb
works 1.0.0
completes
mounts oci:/tmp/image cache-dir=/var/cache/imgfs
serves "at first"
package -i /tmp/2.deb
works 1.0.1
finds "after an upgrade"
package -i /tmp/1.deb
works 1.0.0
finds "after a downgrade"
package -r imgfs
serves "after removal"
[ ! -e /usr/bin/imgfs ] && [ ! -L /usr/sbin/mount.fuse.imgfs ] || fail "the program stays"
package -P imgfs
grep -q 'it stays' /tmp/said || fail "purging says nothing of the cache: $(cat /tmp/said)"
[ -e /var/cache/imgfs/version ] || fail "purging took the cache of a mount"
serves "after purging"
umount /mnt
while kill -0 "$server" 2>/dev/null; do sleep .1; done # what is not ended would fail by the test's timeout

package -i /tmp/2.deb
works 1.0.1
mounts oci:/tmp/image cache-dir=/var/cache/imgfs
serves "again"
imgfs umount /mnt
mkdir /etc/imgfs
echo mine >/etc/imgfs/fstab
package -P imgfs
[ ! -e /var/cache/imgfs ] || fail "the cache stays"
is mine "$(cat /etc/imgfs/fstab)" "a file of the administrator's"
rm /etc/imgfs/fstab
package -i /tmp/2.deb
package -P imgfs
[ ! -e /etc/imgfs ] || fail "an empty directory stays"
