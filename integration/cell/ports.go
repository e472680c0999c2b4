package cell

// platformPorts are those that the platform listens on in an instance: its ssh
// daemon, and Diego's Envoy with a port for each of the instance's ports, the ssh
// daemon's included, and one for other apps that speak TLS to the web process.
// The cell accepts connections there and says nothing.
func platformPorts(processType string) []int {
	const ssh, firstProxy, tls = 2222, 61001, 61443
	switch processType {
	case "": // a task
		return nil
	case webProcess:
		return []int{ssh, firstProxy, firstProxy + 1, tls}
	}
	return []int{ssh, firstProxy}
}
