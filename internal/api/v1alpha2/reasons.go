package v1alpha2

// The reasons of the conditions of Status. Programs branch on them, so they stay as they are.
const (
	// ReasonAccepted: the object is valid and in force.
	ReasonAccepted = "Accepted"
	// ReasonInvalid: the object is refused; the findings of error severity say why.
	ReasonInvalid = "Invalid"
	// ReasonNotInForce: the object is valid and nothing could be made of it; its findings say why.
	ReasonNotInForce = "NotInForce"
	// ReasonProgrammed: every connected proxy has it.
	ReasonProgrammed = "Programmed"
	// ReasonPending: some connected proxy has not acknowledged it yet.
	ReasonPending = "Pending"
	// ReasonNoProxies: no proxy is connected.
	ReasonNoProxies = "NoProxies"
	// ReasonProxyRejected: a proxy refused what was made of it.
	ReasonProxyRejected = "ProxyRejected"
	// ReasonSharedRejected: a proxy refused the configuration that the object is part of, as it seems for the sake of another object.
	ReasonSharedRejected = "SharedConfigurationRejected"
)
