package main

import "time"

// command is the package of the command's tests.
const command = "./cmd/imgfs"

// reserve is how much longer than their budgets the steps may take, all together.
const reserve = 8 * time.Minute

// steps are the long checks. What make test covers is not repeated: here is what takes
// long, more of what is drawn at random, and other numbers of processors. Budgets are
// about what a step takes on two processors.
var steps = []*step{
	{
		name: "survive", budget: 13 * time.Minute,
		covers: "servers and holders killed 200 and 100 times for each way of mounting, and upgrades, under 8 readers that compare everything; a unit's server killed 20 times",
		env:    []string{"IMGFS_KILLS=200"},
		tests:  []string{"-run", "^(TestSurviveKills|TestSurviveUpgrade|TestSystemdKeeps|TestSystemdUser|TestSystemdLogout)$", command},
	}, {
		name: "load", budget: 11 * time.Minute,
		covers: "64 readers of 4 mounts for 10 minutes, a small cache, a slow registry, servers and holders killed all the time",
		env:    []string{"IMGFS_LOAD=10m"},
		tests:  []string{"-run", "^TestLoad$", command},
	}, {
		name: "many", budget: 1 * time.Minute,
		covers: "mount, find and umount of a million files; exploring them; 100 mounts at once, servers and holders killed",
		env:    []string{"IMGFS_STACKS=20000", "IMGFS_MOUNTS=100"},
		tests:  []string{"-run", "^(TestMillionFiles|TestExploreLarge|TestManyMounts)$", command},
	}, {
		name: "soak", budget: 3 * time.Minute,
		covers: "8 readers for 2 minutes while the registry does everything wrong at random",
		env:    []string{"IMGFS_SOAK=2m"},
		tests:  []string{"-run", "^TestSoak$", command},
	}, {
		name: "stress", budget: 3 * time.Minute,
		covers: "8 processes read a big image in all ways there are, for each of six ways to mount",
		env:    []string{"IMGFS_STRESS=20s"},
		tests:  []string{"-run", "^TestStress$", command},
	}, {
		name: "fio", budget: 2 * time.Minute, setup: []string{"fio"},
		covers: "fio verifies what it reads, for each of six ways to mount",
		env:    []string{"IMGFS_STRESS=15s"},
		tests:  []string{"-run", "^TestStressFio$", command},
	}, {
		name: "run", budget: 3 * time.Minute,
		covers: "all images run by all runtimes in all ways, compared with podman",
		env:    []string{"IMGFS_RUN=full"},
		tests:  []string{"-run", "^TestRun", command},
	}, {
		name: "engines", budget: 6 * time.Minute, setup: []string{"netavark"},
		covers: "engines that are built here: containerd 2.4, docker, BuildKit and CRI with imgfs as snapshotter, 200 kills under 8 clients in four namespaces, garbage collection, faults; podman 5.8 with its image store; docs/engines.md",
		env:    []string{"IMGFS_ENGINES=build", "IMGFS_STORM=200"},
		tests:  []string{"-run", "^(TestSnapshotter|TestPodman|TestEnginesDoc)", "-skip", "^TestPodmanImport$", command},
	}, {
		name: "hostile", budget: 7 * time.Minute,
		covers: "attacks by images, archives and registries in their full size",
		env:    []string{"IMGFS_HOSTILE=full"},
		tests:  []string{"-run", "^TestHostile", "./testdata/hostile"},
	}, {
		name: "peers", budget: 2 * time.Minute, setup: []string{"gcc", "zlib1g-dev"},
		covers: "tars, compressed streams, registries.conf and SOCI's indexes read as everybody else does; garbage collection of a registry",
		env:    []string{"IMGFS_TARS=100000", "IMGFS_STREAMS=2000", "IMGFS_PODMAN=1m", "IMGFS_SOCI=build", "IMGFS_DISTRIBUTION3=build"},
		tests: []string{"-run", "^(TestScannerAgrees|TestAgreesWithProgram|TestAgreesWithPodman|TestReal.*|TestPublishersAndGC)$",
			"./layerindex/internal/tarscan", "./layerindex/internal/gzip", "./layerindex/internal/zstd", "./layerindex/soci", "./remote/registry", "./remote/registry/hosts"},
	}, {
		name: "random stacks", budget: 1 * time.Minute,
		covers: "20,000 random stacks of layers against files extracted; mounts of all sample images; memory of indexing",
		env:    []string{"IMGFS_STACKS=20000"},
		tests:  []string{"-run", "^(TestStacks|TestMemory|TestMountEqualsCorpus)$", "./fs", "./fs/image", command},
	}, {
		name: "race", budget: 5 * time.Minute,
		covers: "the slow tests with the race detector, where goroutines share something",
		tests:  []string{"-race", "./fs/fusefs", "./fs/image/...", "./layerindex/build", "./layerindex/reader", "./remote/..."},
	}, {
		name: "race of the command", budget: 2 * time.Minute,
		covers: "the tests of the command with the race detector, but for those that take long",
		tests:  []string{"-race", "-short", command},
	}, {
		name: "one processor", budget: 3 * time.Minute,
		covers: "the other tests of the same packages with GOMAXPROCS=1",
		env:    []string{"GOMAXPROCS=1"},
		tests:  []string{"-short", "./fs/fusefs", "./fs/image/...", "./layerindex/build", "./layerindex/reader", "./remote/..."},
	}, {
		name: "fuzz", budget: 3 * time.Minute,
		covers:  "every fuzz target, all with the same share of a minute and a half",
		command: []string{".ci/fuzz", "all=90", "./..."},
	}, {
		name: "elsewhere", budget: 2 * time.Minute,
		covers:  "that everything builds for arm64, riscv64 and FreeBSD, and that vet finds nothing",
		command: []string{"make", "elsewhere", "ELSEWHERE=linux/arm64 linux/riscv64 freebsd/amd64"},
	},
}
