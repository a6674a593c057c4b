package depcheck

import "strings"

const (
	module   = "github.com/meshctl/meshctl"
	internal = module + "/internal/"
)

// layer counts from the words at the bottom to the commands at the top.
type layer int

const (
	words layer = iota
	shapes
	pure
	world
	programs
	commands
	// testOnly rooms may use everything and are used by tests alone.
	testOnly
)

// room is one row of the house's plan.
type room struct {
	layer layer
	// tree is set where the room's folders are rooms of the same rank that may use each other.
	tree bool
	// sideways lists the rooms of the same layer this one may use.
	sideways []string
	// kubeTypes allows the Kubernetes API types below layer 3.
	kubeTypes bool
	// envoyTypes allows Envoy's protocol types.
	envoyTypes bool
	// commandLine allows cobra and viper.
	commandLine bool
	// bare rooms use the standard library and each other only.
	bare bool
}

// rooms is the plan: every package under internal/ is in it, and nothing else says who may use whom.
func rooms() map[string]room {
	return map[string]room{
		"finding":   {layer: words, bare: true},
		"attribute": {layer: words, bare: true},
		"version":   {layer: words},
		"memo":      {layer: words, bare: true},

		"api":         {layer: shapes, tree: true, kubeTypes: true},
		"objects":     {layer: shapes, sideways: []string{"api"}, kubeTypes: true},
		"model":       {layer: shapes, bare: true},
		"meshconfig":  {layer: shapes},
		"proxystatus": {layer: shapes},
		"resource":    {layer: shapes, sideways: []string{"model"}},

		"manifest": {layer: pure, kubeTypes: true},
		"expr":     {layer: pure},
		"check":    {layer: pure, sideways: []string{"expr"}, kubeTypes: true},
		"ingest":   {layer: pure, sideways: []string{"check"}, kubeTypes: true},
		"envoy":    {layer: pure, tree: true, envoyTypes: true},
		"policy":   {layer: pure, sideways: []string{"expr"}},
		"inject":   {layer: pure, kubeTypes: true},
		"issue":    {layer: pure},

		"kube":         {layer: world},
		"store":        {layer: world, sideways: []string{"kube"}},
		"watch":        {layer: world, sideways: []string{"kube"}},
		"webhook":      {layer: world},
		"xds":          {layer: world, tree: true, envoyTypes: true},
		"adapter":      {layer: world, tree: true},
		"policyserver": {layer: world, sideways: []string{"adapter"}, envoyTypes: true},
		"identity":     {layer: world, sideways: []string{"keystore"}},
		"keystore":     {layer: world},
		"proxystate":   {layer: world, sideways: []string{"kube"}},
		"serve":        {layer: world},
		"sandbox":      {layer: world, sideways: []string{"image"}},
		"image":        {layer: world},
		"capture":      {layer: world},
		"status":       {layer: world},

		"cli":      {layer: programs, tree: true, commandLine: true},
		"meshd":    {layer: programs, tree: true, commandLine: true},
		"agent":    {layer: programs, tree: true, commandLine: true},
		"bookinfo": {layer: programs},
		"tour":     {layer: programs},

		"testkit": {layer: testOnly, tree: true, kubeTypes: true, envoyTypes: true},
		"e2e":     {layer: testOnly, tree: true, kubeTypes: true},
		"bench":   {layer: testOnly, tree: true, kubeTypes: true, envoyTypes: true},
	}
}

// Entries that may stand at the top of the repository.
func topLevel() []string {
	return []string{
		".ci", ".editorconfig", ".gitignore", ".golangci.yml", ".tools", "LICENSE", "Makefile", "README.md",
		"cmd", "completions", "docs", "go.mod", "go.sum", "internal", "rules",
	}
}

// Libraries with a rule of their own, by the beginning of their import paths.
func libraries() map[string]func(layer, room) bool {
	client := func(l layer, _ room) bool { return l >= world }
	kubeTypes := func(l layer, r room) bool { return l >= world || r.kubeTypes }
	envoyTypes := func(_ layer, r room) bool { return r.envoyTypes }
	commandLine := func(_ layer, r room) bool { return r.commandLine }
	return map[string]func(layer, room) bool{
		"k8s.io/client-go":                       client,
		"k8s.io/cli-runtime":                     client,
		"k8s.io/kubectl":                         client,
		"k8s.io/api":                             kubeTypes,
		"k8s.io/apimachinery":                    kubeTypes,
		"k8s.io/apiextensions-apiserver":         kubeTypes,
		"github.com/envoyproxy/go-control-plane": envoyTypes,
		"github.com/cncf/xds":                    envoyTypes,
		"github.com/spf13/cobra":                 commandLine,
		"github.com/spf13/viper":                 commandLine,
	}
}

// meshctlLeaves are the rooms that the users' program does not link: it talks to a control plane and is none.
func meshctlLeaves() []string { return []string{"xds", "adapter", "policyserver", "meshd", "agent"} }

// bannedNames say nothing about what is inside.
func bannedNames() []string {
	return []string{"util", "utils", "common", "helper", "helpers", "base", "misc"}
}

// roomOf gives the name of the room that the package belongs to, the rest of its path inside it, and whether the plan has it.
func roomOf(path string) (name string, r room, ok bool) {
	if path == module+"/rules" {
		return "rules", room{layer: words}, true
	}
	if strings.HasPrefix(path, module+"/cmd/") {
		return strings.TrimPrefix(path, module+"/"), room{layer: commands, commandLine: path == module+"/cmd/gendocs"}, true
	}
	inside, found := strings.CutPrefix(path, internal)
	if !found {
		return "", room{}, false
	}
	name, rest, _ := strings.Cut(inside, "/")
	r, ok = rooms()[name]
	if ok && rest != "" && !r.tree {
		return name, r, false
	}
	return name, r, ok
}
