// SPDX's own schema, for a test: syft's module has it, and is only downloaded.
module schema

go 1.26.0

require github.com/anchore/syft v1.20.0
