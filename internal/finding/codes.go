package finding

// Code is the stable identifier of a kind of finding; scripts and suppressions rely on it, so a code never changes its meaning.
type Code string

// The codes. M00xx: reading a file; M01xx: one object; M02xx: objects among each other; M03xx: what a proxy did with it.
const (
	YAMLSyntax          Code = "M0001" // the text is not YAML or JSON
	UnknownField        Code = "M0002" // a field the kind does not have
	WrongType           Code = "M0003" // a value of another type than the field's
	UnknownKind         Code = "M0004" // a kind this mesh does not have
	MissingIdentity     Code = "M0005" // kind, apiVersion or name is missing
	TooLarge            Code = "M0006" // input beyond the limits
	DuplicateObject     Code = "M0007" // the same object twice
	DuplicateKey        Code = "M0008" // the same key twice in a mapping
	RetiredVersion      Code = "M0009" // an API version Kubernetes no longer serves, upgraded
	NamespaceClash      Code = "M0010" // the object's namespace is not the one asked for
	Required            Code = "M0101" // a required field is missing
	InvalidValue        Code = "M0102" // a value outside what the field allows
	WeightSum           Code = "M0103" // weights that do not total 100
	Conflict            Code = "M0104" // two fields that exclude each other
	InvalidRegex        Code = "M0105" // a regular expression that does not compile
	NotSupported        Code = "M0106" // legal in 0.2's schema but never had an effect, refused with the reason
	NotInForce          Code = "M0107" // accepted, but without effect on this data plane
	UnknownService      Code = "M0201" // a rule for a service that does not exist
	EqualPrecedence     Code = "M0202" // two rules of equal precedence that can match the same request
	UnknownVersion      Code = "M0203" // labels that no instance carries
	ForeignNamespace    Code = "M0204" // a rule that acts on another namespace's service without being allowed to
	UnknownBackend      Code = "M0205" // an Ingress backend or port that does not exist
	Shadowed            Code = "M0206" // a rule that can never match because another one comes first
	PortConflict        Code = "M0207" // services that claim the same address and port differently
	DuplicateClaim      Code = "M0208" // objects that say the same of one host, of which one is in force
	UnusableSecret      Code = "M0209" // a Secret that an Ingress names and that is missing or cannot be used
	DoubtfulCertificate Code = "M0210" // a certificate that clients will refuse
	ProxyRejected       Code = "M0301" // a proxy refused the configuration made from the object
)
