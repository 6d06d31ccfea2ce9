package trouble

// What builds need room and sources for.
var (
	DiskFull = &Row{
		Name: "disk-full", State: Fault,
		Wrong: "a disk that builds write to is full",
		Means: "Builds fail with \"no space left on device\", and a training may lose its output.",
		Mend: everywhere("Free some space on it. Old results of the engine, and images that nobody uses:\n\t{berth} " +
			"engine:prune\n\tdocker image prune\n" +
			"If it has Berth's cache folder, you may also name another folder in BERTH_CACHE."),
	}
	DiskLow = &Row{
		Name: "disk-low", State: Warning,
		Wrong: "a disk that builds write to is nearly full",
		Means: "The engine keeps up to 20 GB of old results and leaves 5 GB free; with less room it drops them, and builds take longer.",
		Mend:  everywhere("See what takes the room:\n\tdocker system df\n\t{berth} engine:status"),
	}
	CacheUnusable = &Row{
		Name: "cache-folder", State: Fault,
		Wrong: "the cache folder can't be used",
		Means: "Nothing builds, and nothing runs: downloads, and the records of what Berth may remove from Docker, lie there.",
		Mend: everywhere("Name a new or empty folder of your own, on a local disk, in BERTH_CACHE, such as\n\texport " +
			"BERTH_CACHE=~/.cache/berth-2"),
	}
	SmallShm = &Row{
		Name: "shm-small", State: Warning,
		Wrong: "/dev/shm of this machine is small",
		Means: "Containers have one of their own, of half the machine's memory, so that this matters with `-ipc=host` alone: data " +
			"loaders with several processes end " +
			"with a bus error there.",
		Mend: everywhere("Leave -ipc=host out, or enlarge it until the next restart:\n\tsudo mount -o remount,size=8G /dev/shm\n" +
			"If this is a container, that is its --shm-size."),
	}
	MirrorsSilent = &Row{
		Name: "mirrors-silent", State: Warning,
		Wrong: "no mirror of Debian's packages answers",
		Means: "`build` and `verify` work as far as the cache has what is locked, and say which package is missing otherwise. `pin` fails.",
		Mend: everywhere("Look at the network and its proxy (http_proxy, https_proxy), or name a mirror that this machine reaches:\n" +
			"\texport BERTH_DEBIAN_MIRROR=https://MIRROR"),
	}
	ModulesSilent = &Row{
		Name: "go-proxy-silent", State: Warning,
		Wrong: "no proxy of Go modules answers",
		Means: "What is in Go's module cache works. Compiling the engine, or an input with Go modules, for the first time fails, and " +
			"so does an upgrade of Berth.",
		Mend: everywhere("Look at the network and its proxy (http_proxy, https_proxy), or name a proxy of modules that this machine " +
			"reaches (the first command is for a GOPROXY in the environment, which go env -w doesn't change):\n" +
			"\tunset GOPROXY\n\tgo env -w GOPROXY=https://PROXY"),
	}
	ForeignEngine = &Row{
		Name: "engine-foreign", State: Fault,
		Wrong: "a container that isn't an engine of Berth's has the engine's name",
		Means: "Nothing builds: Berth touches nothing that isn't its own.",
		Mend: everywhere("Give the engine another name, or remove that container if it isn't needed any more:\n\texport " +
			"BERTH_ENGINE=NAME"),
	}
	EngineBroken = &Row{
		Name: "engine-unknown", State: Warning,
		Wrong: "what there is of an engine couldn't be found out",
		Means: "Builds may fail.",
		Mend:  everywhere("Ask for it alone, or begin with a new one:\n\t{berth} engine:status\n\t{berth} engine:prune"),
	}
)

var space = []*Row{DiskFull, DiskLow, CacheUnusable, SmallShm, MirrorsSilent, ModulesSilent, ForeignEngine, EngineBroken}
