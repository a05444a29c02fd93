package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/tare-oci/tare/internal/getopt"
)

var logoutCommand = command{
	name:    "logout",
	args:    "[REGISTRY]",
	summary: "Forget the user's name and password for a registry",
	setup: func(set *getopt.Set) func([]string) (int, error) {
		var root string
		rootOption(set, &root)
		return func(args []string) (int, error) {
			if len(args) > 1 {
				return exitTare, errors.New("logout: takes at most one REGISTRY")
			}
			e, err := openEngine(root)
			if err != nil {
				return 1, err
			}
			registry, found, err := e.Logout(signalContext(), strings.Join(args, ""))
			switch {
			case err != nil:
				return 1, err
			case !found:
				fmt.Println("Not logged in to", registry)
			default:
				fmt.Println("Removing login credentials for", registry)
			}
			return 0, nil
		}
	},
}
