package ptx

import (
	"fmt"
	"strconv"
	"strings"
)

// A kernel is an entry as it stands in the file, and then its program.
type kernel struct {
	name       string
	order      int
	params     []param
	maxThreads int
	registers  []register
	numbers    map[string]int // of the registers
	shared     []variable
	local      []variable
	labels     map[string]int // the instruction that follows
	source     []statement
	program    []instruction
}

type param struct {
	name string
	typ  typ
}

type register struct {
	name string
	typ  typ
}

// A variable is declared memory.
type variable struct {
	name        string
	size, align int
}

// A statement is an instruction as it stands in the file.
type statement struct {
	line     int
	text     string
	guard    string // name of a predicate, or empty
	negated  bool
	op       string // with its modifiers
	operands []operand
}

type operandKind int

const (
	registerOperand operandKind = iota // name
	constantOperand                    // value
	symbolOperand                      // name: of a variable, a label or a special register
	addressOperand                     // name (perhaps empty) + value
	vectorOperand                      // parts
)

type operand struct {
	kind  operandKind
	name  string
	value uint64
	float typ // of a constant that is written as bits of a float
	parts []operand
}

// parser reads tokens; its first error stays.
type parser struct {
	tokens []token
	at     int
	err    error
}

// Parse reads a PTX file (sections "Source Format" and "Directives").
func Parse(text string) (*Module, error) {
	tokens, err := scan(text)
	if err != nil {
		return nil, err
	}
	p := &parser{tokens: tokens}
	m := &Module{kernels: map[string]*kernel{}}
	var shared []variable // of all kernels of the file
	for p.err == nil && p.peek() != "" {
		switch word := p.next(); word {
		case ".version":
			if v := p.next(); v != "7.8" {
				p.fail("version %s: only 7.8 is known", v)
			}
		case ".target":
			if v := p.next(); v != "sm_80" {
				p.fail("target %s: only sm_80 is known", v)
			}
		case ".address_size":
			if v := p.next(); v != "64" {
				p.fail("addresses of %s bits: only 64 are known", v)
			}
		case ".visible", ".weak":
			// Linking directives. They only matter to other modules.
			if p.peek() != ".entry" && p.peek() != ".shared" {
				p.fail("%s %s isn't known", word, p.peek())
			}
		case ".shared":
			shared = append(shared, p.variable())
		case ".entry":
			k := p.entry()
			if p.err != nil {
				break
			}
			if m.kernels[k.name] != nil {
				p.fail("kernel %s is there twice", k.name)
				break
			}
			k.order = len(m.kernels)
			k.shared = append(shared[:len(shared):len(shared)], k.shared...)
			m.kernels[k.name] = k
		default:
			p.fail("directive %q isn't known", word)
		}
	}
	if p.err != nil {
		return nil, p.err
	}
	for _, name := range m.Kernels() {
		if err := m.kernels[name].compile(); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// entry reads a kernel after the word .entry (section "Kernel and Function
// Directives").
func (p *parser) entry() *kernel {
	k := &kernel{name: p.name(), maxThreads: maxThreads, numbers: map[string]int{}, labels: map[string]int{}}
	p.expect("(")
	for p.err == nil && p.peek() != ")" {
		p.expect(".param")
		t := p.typ()
		k.params = append(k.params, param{p.name(), t})
		if p.peek() == "," {
			p.next()
		}
	}
	p.expect(")")
	if p.peek() == ".maxntid" {
		p.next()
		k.maxThreads = p.number(maxThreads)
		for range 2 {
			p.expect(",")
			k.maxThreads = min(maxThreads, k.maxThreads*max(1, p.number(maxThreads)))
		}
	}
	p.expect("{")
	for p.err == nil && p.peek() != "}" {
		p.statement(k)
	}
	p.expect("}")
	return k
}

func (p *parser) statement(k *kernel) {
	switch word := p.peek(); {
	case p.err != nil:
	case word == ".reg":
		p.next()
		t := p.typ()
		prefix := p.name()
		p.expect("<")
		n := p.number(1 << 14)
		p.expect(">")
		p.expect(";")
		for i := range n {
			name := prefix + strconv.Itoa(i)
			if _, double := k.numbers[name]; double {
				p.fail("register %s is there twice", name)
				return
			}
			k.numbers[name] = len(k.registers)
			k.registers = append(k.registers, register{name, t})
		}
	case word == ".shared":
		p.next()
		k.shared = append(k.shared, p.variable())
	case word == ".local":
		p.next()
		k.local = append(k.local, p.variable())
	case word == ".pragma":
		p.next()
		if s := p.next(); s != `"nounroll"` { // a hint that changes no result
			p.fail("pragma %s isn't known", s)
		}
		p.expect(";")
	case p.at+1 < len(p.tokens) && p.tokens[p.at+1].text == ":":
		name := p.name()
		p.next()
		if _, double := k.labels[name]; double {
			p.fail("label %s is there twice", name)
			return
		}
		k.labels[name] = len(k.source)
	default:
		k.source = append(k.source, p.instruction())
	}
}

// variable reads the declaration of a variable after its state space (section
// "Variables").
func (p *parser) variable() (v variable) {
	v.align = 1
	if p.peek() == ".align" {
		p.next()
		v.align = p.number(256)
	}
	t := p.typ()
	v.align = max(v.align, t.size())
	v.name, v.size = p.name(), t.size()
	if p.peek() == "[" {
		p.next()
		v.size *= p.number(1 << 20)
		p.expect("]")
	}
	p.expect(";")
	if p.err == nil && (v.align&(v.align-1) != 0 || v.size == 0 || t.kind == 'p') {
		p.fail("a variable of %d bytes aligned to %d", v.size, v.align)
	}
	return v
}

// instruction reads one (section "Instruction Statements").
func (p *parser) instruction() statement {
	first := p.at
	s := statement{}
	if p.at < len(p.tokens) {
		s.line = p.tokens[p.at].line
	}
	if p.peek() == "@" {
		p.next()
		if p.peek() == "!" {
			p.next()
			s.negated = true
		}
		s.guard = p.name()
	}
	s.op = p.name()
	for p.err == nil && p.peek() != ";" {
		if len(s.operands) > 0 {
			p.expect(",")
		}
		s.operands = append(s.operands, p.operand())
	}
	p.expect(";")
	var words []string
	for _, t := range p.tokens[first:p.at] {
		words = append(words, t.text)
	}
	s.text = strings.Join(words, " ")
	return s
}

// operand reads one (section "Instruction Operands").
func (p *parser) operand() operand {
	switch word := p.peek(); {
	case word == "{":
		p.next()
		o := operand{kind: vectorOperand}
		for p.err == nil && p.peek() != "}" {
			if len(o.parts) > 0 {
				p.expect(",")
			}
			if p.peek() == "{" || p.peek() == "[" {
				p.fail("a vector's part is %q", p.peek())
				break
			}
			o.parts = append(o.parts, p.operand())
		}
		p.expect("}")
		return o
	case word == "[":
		p.next()
		o := operand{kind: addressOperand}
		if c := p.peek(); c != "" && (c[0] == '-' || c[0] >= '0' && c[0] <= '9') {
			o.value = p.constant().value
		} else {
			o.name = p.name()
			if p.peek() == "+" {
				p.next()
				o.value = p.constant().value
			}
		}
		p.expect("]")
		return o
	case word != "" && (word[0] == '-' || word[0] >= '0' && word[0] <= '9'):
		return p.constant()
	default:
		kind := symbolOperand
		if strings.HasPrefix(word, "%") {
			kind = registerOperand
		}
		return operand{kind: kind, name: p.name()}
	}
}

// constant reads an integer, or the bits of a float (section "Constants").
func (p *parser) constant() operand {
	o := operand{kind: constantOperand}
	negative := p.peek() == "-"
	if negative {
		p.next()
	}
	word := p.next()
	var err error
	switch {
	case strings.HasPrefix(word, "0f") && len(word) == 10 && !negative:
		o.float = f32
		o.value, err = strconv.ParseUint(word[2:], 16, 32)
	case strings.HasPrefix(word, "0d") && len(word) == 18 && !negative:
		o.float = f64
		o.value, err = strconv.ParseUint(word[2:], 16, 64)
	case len(word) > 1 && word[0] == '0' && word[1] != 'x' && word[1] != 'X':
		err = fmt.Errorf("%q", word) // octal and binary aren't in our files
	default:
		o.value, err = strconv.ParseUint(word, 0, 64)
	}
	if negative {
		o.value = -o.value
	}
	if err != nil {
		p.fail("%q is not a constant", word)
	}
	return o
}

func (p *parser) typ() typ {
	word := p.next()
	t, ok := types[strings.TrimPrefix(word, ".")]
	if !ok || !strings.HasPrefix(word, ".") {
		p.fail("type %q isn't known", word)
	}
	return t
}

func (p *parser) name() string {
	word := p.next()
	if word == "" || !strings.ContainsRune("%_$", rune(word[0])) && !isLetter(word[0]) {
		p.fail("%q where a name is due", word)
	}
	return word
}

func (p *parser) number(limit int) int {
	word := p.next()
	n, err := strconv.Atoi(word)
	if err != nil || n < 0 || n > limit {
		p.fail("%q where a number up to %d is due", word, limit)
		return 0
	}
	return n
}

func (p *parser) expect(want string) {
	if word := p.next(); word != want {
		p.fail("%q where %q is due", word, want)
	}
}

func (p *parser) peek() string {
	if p.at < len(p.tokens) {
		return p.tokens[p.at].text
	}
	return ""
}

func (p *parser) next() string {
	word := p.peek()
	p.at = min(p.at+1, len(p.tokens))
	return word
}

func (p *parser) fail(format string, args ...any) {
	if p.err != nil {
		return
	}
	line := 0
	if n := min(p.at, len(p.tokens)); n > 0 {
		line = p.tokens[n-1].line
	}
	p.err = fmt.Errorf("PTX line %d: %s", line, fmt.Sprintf(format, args...))
}
