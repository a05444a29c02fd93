package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"

	"github.com/tare-oci/tare/internal/getopt"
	"github.com/tare-oci/tare/internal/sys/pty"
)

var loginCommand = command{
	name:    "login",
	args:    "[REGISTRY]",
	summary: "Check and keep a user's name and password for a registry",
	setup:   setupLogin,
	more: `
Without REGISTRY it is Docker Hub. The credential is kept where docker keeps it, in ~/.docker/config.json or in the helper that
this file names, and is sent to this registry only. A password that is an argument can be seen by others on the machine: use
--password-stdin.
`,
}

func setupLogin(set *getopt.Set) func([]string) (int, error) {
	var user, password, root string
	var stdin bool
	set.String(&user, "username", 'u', "NAME", "the user")
	set.String(&password, "password", 'p', "TEXT", "the password or token")
	set.Bool(&stdin, "password-stdin", 0, "read the password from standard input")
	rootOption(set, &root)
	return func(args []string) (int, error) {
		switch {
		case len(args) > 1:
			return exitTare, errors.New("login: takes at most one REGISTRY")
		case stdin && password != "":
			return exitTare, errors.New("login: --password and --password-stdin are mutually exclusive")
		case stdin && user == "":
			return exitTare, errors.New("login: --password-stdin needs --username")
		}
		host := strings.Join(args, "")
		e, err := openEngine(root)
		if err != nil {
			return 1, err
		}
		if password != "" {
			warn("a password on the command line can be seen by others on the machine: use --password-stdin")
		}
		if user, password, err = ask(user, password, stdin); err != nil {
			return 1, err
		}
		done, err := e.Login(signalContext(), host, user, password)
		if err != nil {
			return 1, err
		}
		if !done.Checked {
			warn(done.Registry + " answers without asking who it is: the password was kept, but not checked")
		}
		fmt.Printf("Login Succeeded: kept in %s\n", done.Where)
		return 0, nil
	}
}

// maxPassword bounds what is read as a password; tokens have some thousand bytes.
const maxPassword = 64 << 10

// ask completes what was not given.
func ask(user, password string, stdin bool) (string, string, error) {
	if stdin {
		data, err := io.ReadAll(io.LimitReader(os.Stdin, maxPassword+1))
		if err == nil && len(data) > maxPassword {
			err = fmt.Errorf("the password has more than %d bytes", maxPassword)
		}
		password = strings.TrimRight(string(data), "\r\n")
		if err == nil && password == "" {
			err = errors.New("standard input has no password")
		}
		return user, password, err
	}
	if user != "" && password != "" {
		return user, password, nil
	}
	if !pty.IsTerminal(os.Stdin) {
		return "", "", errors.New("standard input is no terminal to ask for a name and a password: use --username and --password-stdin")
	}
	if user == "" {
		fmt.Print("Username: ")
		line, err := bufio.NewReader(os.Stdin).ReadString('\n')
		if err != nil {
			return "", "", err
		}
		user = strings.TrimSpace(line)
	}
	if password == "" {
		fmt.Print("Password: ")
		secret, err := term.ReadPassword(int(os.Stdin.Fd()))
		fmt.Println()
		if err != nil {
			return "", "", err
		}
		password = string(secret)
	}
	if user == "" || password == "" {
		return "", "", errors.New("a name and a password are needed")
	}
	return user, password, nil
}
