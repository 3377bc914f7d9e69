// Package bundle writes what an OCI runtime (runc, crun) needs to run an image: a
// config.json, made of the image's config, its tree and a user's wishes.
//
//	config, err := bundle.ParseConfig(img.Resolved().Config)
//	spec, err := bundle.Spec(ctx, config, img.Tree(), &bundle.Options{Rootfs: "rootfs"})
//	err = bundle.Write(spec, dir)
//
// The config is that of OCI runtime-spec 1.0.2. What it says follows podman run of Debian
// 12 in command, environment, user, groups and working directory, and docker in
// capabilities, in the seccomp profile and in the parts of /proc and /sys that are
// hidden. It differs where the container has less of the machine: there is no network
// unless Network says so, and limits are those of whoever starts the runtime.
//
// Users and groups are looked up in the tree, by the library that docker, podman and
// runc use for it. Programs are looked for there too: a command that cannot be started
// is found before anything is.
//
// # Limits
//
// Images are strangers'. An argument or a variable has at most 131,071 bytes, which is
// what Linux takes; all together have 6 MiB at most. A passwd or group file over 16 MiB
// is not read. What is neither an image for Linux nor one for a processor that this
// machine has, or emulates by binfmt_misc, is refused.
package bundle
