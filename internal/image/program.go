package image

import "path/filepath"

// BuildProgram writes to path an archive of one image that holds one static program and runs it.
func BuildProgram(path, name, program string) error {
	target := "/" + filepath.Base(program)
	return archive{
		file:   filepath.Base(path),
		files:  append(users(), file{path: target, source: program, mode: 0o755}),
		images: []tagged{{name: name, entrypoint: []string{target}, user: appUser}},
	}.build(path)
}
