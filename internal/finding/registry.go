package finding

// Description tells what a code stands for.
type Description struct {
	Code     Code
	Name     string
	Severity Severity
	Meaning  string
	// Do is what usually helps.
	Do string
}

// Registry describes every code, in their order. A finding may be graver or milder than its code's usual severity.
func Registry() []Description {
	return []Description{
		{YAMLSyntax, "YAMLSyntax", Error, "The text is not YAML or JSON. The position is the line where it stops making sense.",
			"Look at the line and the one before it: indentation, an open quote or bracket, a colon in a value without quotes, a tab."},
		{UnknownField, "UnknownField", Error, "The kind has no field of this name. For Kubernetes' own kinds it is a warning, for the cluster may be newer than this program.",
			"Take the name that the hint proposes, or look whether the field is indented under the right one."},
		{WrongType, "WrongType", Error, "A value of another type than the field takes.",
			"Put text that looks like a number or a boolean in quotes, write durations with a unit (7s), begin the entries of a list with dashes."},
		{UnknownKind, "UnknownKind", Error, "The mesh has no such kind, or this version does not serve it.",
			"Take the kind that the hint proposes. Kinds of policy and telemetry come with a later release."},
		{MissingIdentity, "MissingIdentity", Error, "The object does not say what it is: kind, apiVersion or name is missing.",
			"Add the field that is named."},
		{TooLarge, "TooLarge", Error, "The input is beyond the limits: size, number of documents, depth, values after the expansion of aliases, or findings.",
			"Split the file."},
		{DuplicateObject, "DuplicateObject", Error, "The same object is there twice in what is read together.",
			"Remove or rename one of them."},
		{DuplicateKey, "DuplicateKey", Error, "A mapping has the same key twice, or a field in both of its spellings.",
			"Keep one of them."},
		{RetiredVersion, "RetiredVersion", Info, "The object's API version is not served any more and was read as the one that took its place. For the mesh's own kinds it is a warning.",
			"Write the current version into the file. The flag --keep-api-versions leaves versions as they are."},
		{NamespaceClash, "NamespaceClash", Error, "The object names another namespace than the one that was asked for.",
			"Pass the object's namespace, or remove it from the object."},
		{Required, "Required", Error, "A field without which the object says nothing is missing.",
			"Add it; the hint says what it takes."},
		{InvalidValue, "InvalidValue", Error, "A value that the field does not allow: a name, number, duration, host or address out of its form or range.",
			"Correct it; the hint says what is allowed."},
		{WeightSum, "WeightSum", Error, "The weights of a rule do not total 100.",
			"Change them so that they do. A single entry may leave its weight out."},
		{Conflict, "Conflict", Error, "Fields that exclude each other are both set, or a value that must be unique is there twice.",
			"Keep one of them."},
		{InvalidRegex, "InvalidRegex", Error, "A regular expression that proxies cannot compile. The syntax is RE2, and the whole value must match.",
			"Correct it. RE2 has no look-around and no back-references."},
		{NotSupported, "NotSupported", Error, "A field of 0.2's schema that was refused there too, because nothing ever carried it out.",
			"Remove it; the hint names what to use instead, where there is something."},
		{NotInForce, "NotInForce", Warning, "The object or field is accepted as 0.2 accepted it, but has no effect.",
			"Remove it, or use what the hint names."},
		{UnknownService, "UnknownService", Warning, "A rule speaks of a service that does not exist. It takes effect when the service is created.",
			"Look at the name and the namespace: a short name means the rule's own namespace."},
		{EqualPrecedence, "EqualPrecedence", Warning, "Two rules for one service have the same precedence and can match the same request. The one whose namespace, then name, comes first wins.",
			"Give the rule that should win a higher precedence."},
		{UnknownVersion, "UnknownVersion", Warning, "No instance of the service carries the labels, so requests sent there are answered 503.",
			"Deploy the version before the rule, or correct the labels."},
		{ForeignNamespace, "ForeignNamespace", Warning, "A rule for a service of another namespace acts on calls from its own namespace alone.",
			"Put the rule into the service's namespace, or into istio-system, to act on all calls."},
		{UnknownBackend, "UnknownBackend", Warning, "An Ingress sends requests to a service or port that does not exist.",
			"Correct the backend, or create the Service."},
		{Shadowed, "Shadowed", Warning, "A rule never matches, because one of higher precedence takes every request that it could.",
			"Give it a higher precedence, or narrow the other rule."},
		{PortConflict, "PortConflict", Warning, "Services claim the same address and port for different protocols, and one of them wins.",
			"Change a port or its protocol."},
		{DuplicateClaim, "DuplicateClaim", Warning, "Several objects say the same of one host or version, and only the one whose name comes first is in force.",
			"Keep one of them."},
		{UnusableSecret, "UnusableSecret", Warning, "An Ingress names a Secret that does not exist, is not of type kubernetes.io/tls, or holds no certificate with its key. Connections for its hosts are closed; other hosts are served.",
			"Make the Secret with kubectl create secret tls, in the Ingress's namespace. The hint says what is wrong with one that is there."},
		{DoubtfulCertificate, "DoubtfulCertificate", Warning, "The certificate of an Ingress has expired, is not valid yet, or is not for a host that it serves. It is used all the same, and clients will refuse it.",
			"Put a certificate for the host into the Secret; gateways take it at once."},
		{ProxyRejected, "ProxyRejected", Error, "A proxy refused the configuration that was made from the object and keeps what it had.",
			"Read the proxy's words in the message. If the object is sound, it is a defect of the mesh: report it."},
	}
}
