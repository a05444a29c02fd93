package main

// imageCommand returns the group of commands for images, by the names that docker image has for them.
func imageCommand() command {
	named := func(name string, c command) command {
		c.name = name
		return c
	}
	return command{
		name:    "image",
		summary: "Manage images: the same commands as a group",
		sub: []command{
			named("ls", imagesCommand), named("list", imagesCommand), inspectCommand, historyCommand, pullCommand, pushCommand,
			copyCommand, tagCommand, named("rm", rmiCommand), named("remove", rmiCommand), pruneCommand,
			saveCommand, loadCommand, importCommand, convertCommand, diffCommand, whyCommand, fsckCommand, mountCommand, umountCommand, named("unmount", umountCommand), tagsCommand,
		},
	}
}
