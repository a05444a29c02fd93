package clients

const dockerShell = ""
