package doctor

import "github.com/berthdev/berth/internal/trouble"

// cacheFolder is whether Berth's cache folder can be used.
func cacheFolder(h Host) Finding {
	c := h.Cache
	switch {
	case c.Err != "":
		return found(trouble.CacheUnusable, c.Err)
	case c.ReadOnly:
		return found(trouble.CacheUnusable, c.Path+" can't be written to")
	case c.Path == "":
		return Finding{}
	}
	return fine(c.Path)
}
