//! The one table of instructions, from which the opcode type, the disassembler, the verifier's operand checks and
//! the instruction reference come.
//!
//! An instruction is 32 bits, little-endian, in one of three formats (after LuaJIT's `lj_bc.h`):
//!
//! | format | bits 0..8 | 8..16 | 16..24 | 24..32 |
//! | --- | --- | --- | --- | --- |
//! | `ABC` | opcode | A | B | C |
//! | `AD` | opcode | A | D (16 bits) | |
//! | `J` | opcode | J (24 bits, signed) | | |
//!
//! Some are followed by an *extension word*: `Field` holds a constant's index (low half, a string) and a slot hint
//! (high half, written by the interpreter, any value is safe), `Index` a 32-bit number.
//!
//! Jumps are relative to the instruction after the jump (after its extension word, if it had one). `R[x]` is a
//! register of the frame, `K[x]` a constant. A comparison is followed by a `JMP` that it takes when its condition holds, and otherwise skips.
//!
//! A frame's registers: parameters, then the raw range, then all other tagged registers. The register before a call's
//! arguments, and the function's own, are the callee's frame header: `R[A]` function, `R[A+1]` link, `R[A+2]…` arguments.

/// How an instruction's bits are divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Three operands of eight bits.
    ABC,
    /// One operand of eight bits, one of sixteen.
    AD,
    /// One signed operand of 24 bits.
    J,
}

/// What the word after an instruction holds, if one belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extension {
    /// There is none.
    None,
    /// A string constant's index in the low half, a slot hint in the high half.
    Field,
    /// A constant's index, of 32 bits.
    Constant,
    /// A number of 32 bits.
    Index,
    /// A struct type's constant in the low half; in the high half the constant of a number that says where in such a struct a scalar lies: its
    /// offset times 256 and its kind.
    Path,
    /// By operand B of `CHECK`: the constant of a struct's type, or the kind of an array's scalars.
    Type,
}

/// What an operand means; the verifier checks each accordingly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operand {
    /// Not used: must be zero.
    None,
    /// A tagged register that is read.
    Read,
    /// A tagged register that is written.
    Write,
    /// A tagged register that holds a cell (the verifier proves it) of a tagged variable.
    Cell,
    /// A tagged register that is written with a new cell.
    NewCell,
    /// As `Cell`, for a cell that holds a raw word.
    RawCell,
    /// As `NewCell`, for a cell that holds a raw word.
    NewRawCell,
    /// A raw register that is read.
    RawRead,
    /// A raw register that is written.
    RawWrite,
    /// The first of a run of tagged registers; the instruction's entry says how many and what happens to them.
    Base,
    /// The first of four raw registers of a loop.
    RawBase,
    /// An unsigned number.
    Unsigned,
    /// A signed number.
    Signed,
    /// A constant of any kind.
    Constant,
    /// A constant that is a number.
    NumberConstant,
    /// A signed jump distance.
    Jump,
    /// A function of the prototype's children.
    Child,
    /// A capture that holds a tagged value.
    Capture,
    /// A capture that holds a cell of a tagged variable.
    CellCapture,
    /// A capture that holds a raw word.
    RawCapture,
    /// A capture that holds a cell with a raw word.
    RawCellCapture,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Instruction {
    /// As the disassembler prints it.
    pub name: &'static str,
    /// How its bits are divided.
    pub format: Format,
    /// A, B, C, or A, D, or J.
    pub operands: [Operand; 3],
    /// What follows it.
    pub extension: Extension,
    /// What it does.
    pub effect: &'static str,
}

macro_rules! instructions {
    (@ext) => { Extension::None };
    (@ext $e:ident) => { Extension::$e };
    (@ops ABC $a:ident $b:ident $c:ident) => { [Operand::$a, Operand::$b, Operand::$c] };
    (@ops AD $a:ident $d:ident) => { [Operand::$a, Operand::$d, Operand::None] };
    (@ops J $j:ident) => { [Operand::$j, Operand::None, Operand::None] };
    ($($op:ident $format:ident ($($operand:ident)*) $([$ext:ident])? $effect:literal;)*) => {
        /// An operation. The number of each is private to a version of the bytecode.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        #[allow(missing_docs, reason = "assembler's names; the table says what each does")]
        pub enum Op { $($op),* }

        /// The table, indexed by `Op as usize`.
        pub static INSTRUCTIONS: &[Instruction] = &[$(Instruction {
            name: stringify!($op),
            format: Format::$format,
            operands: instructions!(@ops $format $($operand)*),
            extension: instructions!(@ext $($ext)?),
            effect: $effect,
        }),*];

        /// All operations, in the order of their numbers.
        pub const ALL_OPS: &[Op] = &[$(Op::$op),*];
    };
}

instructions! {
    // Function heads: the first instruction of every function, executed by each call with the number of arguments at hand.
    FUNC   AD  (Unsigned Unsigned) "enter a function: A registers, D parameters; missing arguments and all other tagged registers become nil";
    FUNCV  AD  (Unsigned Unsigned) "enter a variadic function: A registers, D parameters; the frame moves up behind the extra arguments";
    NATIVE AD  (None None) "enter a native function";

    // Moves and constants.
    MOV    AD  (Write Read) "R[A] = R[D]";
    KVAL   AD  (Write Constant) "R[A] = K[D]";
    KINT   AD  (Write Signed) "R[A] = integer D";
    KVALX  AD  (Write Unsigned) [Constant] "R[A] = K[extension]";
    KNIL   AD  (Base Unsigned) "R[A] .. R[D] = nil, D >= A";
    KBOOL  AD  (Write Unsigned) "R[A] = D ~= 0";

    // Comparisons: each is followed by JMP.
    ISLT   AD  (Read Read) "jump if R[A] < R[D]";
    ISNLT  AD  (Read Read) "jump if not (R[A] < R[D])";
    ISLE   AD  (Read Read) "jump if R[A] <= R[D]";
    ISNLE  AD  (Read Read) "jump if not (R[A] <= R[D])";
    ISEQ   AD  (Read Read) "jump if R[A] == R[D]";
    ISNE   AD  (Read Read) "jump if R[A] ~= R[D]";
    ISEQK  AD  (Read Constant) "jump if R[A] == K[D]; K[D] is a number or a string";
    ISNEK  AD  (Read Constant) "jump if R[A] ~= K[D]";
    ISLTI  AD  (Read Signed) "jump if R[A] < D";
    ISNLTI AD  (Read Signed) "jump if not (R[A] < D)";
    ISLEI  AD  (Read Signed) "jump if R[A] <= D";
    ISNLEI AD  (Read Signed) "jump if not (R[A] <= D)";
    ISGTI  AD  (Read Signed) "jump if R[A] > D";
    ISNGTI AD  (Read Signed) "jump if not (R[A] > D)";
    ISGEI  AD  (Read Signed) "jump if R[A] >= D";
    ISNGEI AD  (Read Signed) "jump if not (R[A] >= D)";
    ISLTK  AD  (Read NumberConstant) "jump if R[A] < K[D]";
    ISNLTK AD  (Read NumberConstant) "jump if not (R[A] < K[D])";
    ISLEK  AD  (Read NumberConstant) "jump if R[A] <= K[D]";
    ISNLEK AD  (Read NumberConstant) "jump if not (R[A] <= K[D])";
    ISGTK  AD  (Read NumberConstant) "jump if R[A] > K[D]";
    ISNGTK AD  (Read NumberConstant) "jump if not (R[A] > K[D])";
    ISGEK  AD  (Read NumberConstant) "jump if R[A] >= K[D]";
    ISNGEK AD  (Read NumberConstant) "jump if not (R[A] >= K[D])";
    ISEQI  AD  (Read Signed) "jump if R[A] == D";
    ISNEI  AD  (Read Signed) "jump if R[A] ~= D";
    ISEQP  AD  (Read Unsigned) "jump if R[A] is nil, false or true, as D is 0, 1 or 2";
    ISNEP  AD  (Read Unsigned) "jump if R[A] is not nil, false or true, as D is 0, 1 or 2";
    IST    AD  (None Read) "jump if R[D] is true";
    ISF    AD  (None Read) "jump if R[D] is nil or false";
    ISTC   AD  (Write Read) "if R[D] is true, R[A] = R[D] and jump";
    ISFC   AD  (Write Read) "if R[D] is nil or false, R[A] = R[D] and jump";
    JMP    J   (Jump) "jump forward, or backward to where a safepoint follows";
    LOOP   J   (Jump) "jump backward, at a safepoint";

    // Arithmetic.
    NOT    AD  (Write Read) "R[A] = not R[D]";
    NEG    AD  (Write Read) "R[A] = -R[D]";
    BNOT   AD  (Write Read) "R[A] = ~R[D]";
    LEN    AD  (Write Read) "R[A] = #R[D]";
    ADD    ABC (Write Read Read) "R[A] = R[B] + R[C]";
    SUB    ABC (Write Read Read) "R[A] = R[B] - R[C]";
    MUL    ABC (Write Read Read) "R[A] = R[B] * R[C]";
    DIV    ABC (Write Read Read) "R[A] = R[B] / R[C]";
    MOD    ABC (Write Read Read) "R[A] = R[B] % R[C]";
    IDIV   ABC (Write Read Read) "R[A] = R[B] // R[C]";
    POW    ABC (Write Read Read) "R[A] = R[B] ^ R[C]";
    BAND   ABC (Write Read Read) "R[A] = R[B] & R[C]";
    BOR    ABC (Write Read Read) "R[A] = R[B] | R[C]";
    BXOR   ABC (Write Read Read) "R[A] = R[B] ~ R[C]";
    SHL    ABC (Write Read Read) "R[A] = R[B] << R[C]";
    SHR    ABC (Write Read Read) "R[A] = R[B] >> R[C]";
    ADDK   ABC (Write Read NumberConstant) "R[A] = R[B] + K[C]";
    SUBK   ABC (Write Read NumberConstant) "R[A] = R[B] - K[C]";
    MULK   ABC (Write Read NumberConstant) "R[A] = R[B] * K[C]";
    DIVK   ABC (Write Read NumberConstant) "R[A] = R[B] / K[C]";
    MODK   ABC (Write Read NumberConstant) "R[A] = R[B] % K[C]";
    IDIVK  ABC (Write Read NumberConstant) "R[A] = R[B] // K[C]";
    POWK   ABC (Write Read NumberConstant) "R[A] = R[B] ^ K[C]";
    BANDK  ABC (Write Read NumberConstant) "R[A] = R[B] & K[C]";
    BORK   ABC (Write Read NumberConstant) "R[A] = R[B] | K[C]";
    BXORK  ABC (Write Read NumberConstant) "R[A] = R[B] ~ K[C]";
    SHLK   ABC (Write Read NumberConstant) "R[A] = R[B] << K[C]";
    SHRK   ABC (Write Read NumberConstant) "R[A] = R[B] >> K[C]";
    KADD   ABC (Write NumberConstant Read) "R[A] = K[B] + R[C]";
    KSUB   ABC (Write NumberConstant Read) "R[A] = K[B] - R[C]";
    KMUL   ABC (Write NumberConstant Read) "R[A] = K[B] * R[C]";
    KDIV   ABC (Write NumberConstant Read) "R[A] = K[B] / R[C]";
    CONCAT ABC (Write Base Unsigned) "R[A] = R[B] .. … .. R[C], C > B; R[B] .. R[C] are lost";

    // Captured variables. One that is never assigned after its capture is copied into the closure; any other lives in a cell.
    GETCAP  AD (Write Capture) "R[A] = captures[D]";
    GETCELL AD (Write CellCapture) "R[A] = what the cell in captures[D] holds";
    SETCELL AD (Read CellCapture) "the cell in captures[D] holds R[A]";
    NEWCELL AD (NewCell Read) "R[A] = new cell that holds R[D]";
    CELLGET AD (Write Cell) "R[A] = what the cell in R[D] holds";
    CELLSET AD (Cell Read) "the cell in R[A] holds R[D]";
    FNEW    AD (Write Child) "R[A] = closure of child D, which says what it captures";

    // Globals and tables. Capture 0 of a function that uses globals is its environment.
    GGET   AD  (Write None) [Field] "R[A] = captures[0][K]";
    GSET   AD  (Read None) [Field] "captures[0][K] = R[A]";
    TNEW   AD  (Write Unsigned) "R[A] = new table; D: bits 0..11 dense slots, 11..16 hash slots as 0 or 1 + log2";
    TGET   ABC (Write Read Read) "R[A] = R[B][R[C]]";
    TGETS  ABC (Write Read None) [Field] "R[A] = R[B][K]";
    TGETI  ABC (Write Read Unsigned) "R[A] = R[B][integer C]";
    TSET   ABC (Read Read Read) "R[B][R[C]] = R[A]";
    TSETS  ABC (Read Read None) [Field] "R[B][K] = R[A]";
    TSETI  ABC (Read Read Unsigned) "R[B][integer C] = R[A]";
    TSETK  ABC (Constant Read Read) "R[B][R[C]] = K[A]";
    TSETSK ABC (Constant Read None) [Field] "R[B][K] = K[A]";
    TSETIK ABC (Constant Read Unsigned) "R[B][integer C] = K[A]";
    TLIST  AD  (Base Unsigned) [Index] "R[A] is a new table: [index + i] = R[A+1+i] for i from 0 to D-1; no metamethods";
    TLISTM AD  (Base Unsigned) [Index] "as TLIST with D values and then the open results";
    SELF   ABC (Base Read None) [Field] "R[A+2] = R[B]; R[A] = R[B][K]";

    // Calls. Results start at R[A]. An open result count is kept for the next instruction of the M forms.
    CALL   ABC (Base Unsigned Unsigned) "call R[A] with B arguments from R[A+2]; C - 1 results, or open if C is 0";
    CALLM  ABC (Base Unsigned Unsigned) "as CALL, with B arguments and then the open results";
    TCALL  AD  (Base Unsigned) "return the results of R[A] called with D arguments from R[A+2]; those of a native are left open from R[A] on, for the RETM that follows";
    TCALLM AD  (Base Unsigned) "as TCALL, with D arguments and then the open results";
    RET    AD  (Base Unsigned) "return D values from R[A]";
    RETM   AD  (Base Unsigned) "return D values from R[A] and then the open results";
    RET0   AD  (None None) "return nothing";
    RET1   AD  (Read None) "return R[A]";
    VARG   AD  (Base Unsigned) "R[A] .. = the extra arguments: D - 1 of them, or all, open, if D is 0";

    // Loops. FOR: R[A] index, R[A+1] limit, R[A+2] step, R[A+3] the loop variable.
    FORPREP AD (Base Jump) "check and normalise R[A] .. R[A+2], R[A+3] = R[A]; jump if there is no iteration";
    FORLOOP AD (Base Jump) "R[A] += R[A+2]; if not past R[A+1], R[A+3] = R[A] and jump back, at a safepoint";
    ITERCALL ABC (Base Unsigned Unsigned) "R[A], R[A+2], R[A+3] = R[A-4], R[A-3], R[A-2]; call R[A] with B = 2 arguments, C - 1 results from R[A]; R[A-4] is lost";
    ITERLOOP AD (Base Jump) "if R[A] ~= nil, R[A-2] = R[A] and jump back, at a safepoint";
    TBC    AD  (Read None) "R[A] is to be closed when its block ends; nil and false are not, anything else without __close is an error";
    CLOSE  AD  (Base None) "close what is to be closed in R[A] and above, last first";

    // parallel for. The body is a function of (index, limit, step, latch) whose R[4] is the loop variable.
    BUILTIN AD (Write Unsigned) "R[A] = the engine's function D, by which the compiler does what it has no instruction for";
    PFORPREP AD (Base Jump) "R[A] is the body, R[A+2] .. R[A+4] start, limit, step: check and normalise, R[A+5] = nil; jump if there is no iteration. A CALL with 4 arguments and 1 result follows";
    PFORLOOP AD (None Jump) "R[0] += R[2]; if not past R[1], R[4] = R[0] and jump back, at a safepoint where the rest may be split";
    PJOIN  AD  (Base None) "R[A] is what the body returned: wait for the pieces that were split off, raise the error of the lowest that failed";

    // Raw registers: 64-bit integers (I…) and doubles (F…).
    RMOV   AD  (RawWrite RawRead) "R[A] = R[D]";
    RKINT  AD  (RawWrite Signed) "R[A] = integer D";
    RKFLT  AD  (RawWrite Signed) "R[A] = double D";
    RKVAL  AD  (RawWrite NumberConstant) "R[A] = the integer or double K[D], raw";
    BOXI   AD  (Write RawRead) "R[A] = integer R[D]";
    BOXF   AD  (Write RawRead) "R[A] = float R[D]";
    TOI    AD  (RawWrite Read) "R[A] = R[D] as an integer: an integer, or a float with an exact integer value; else an error";
    TOF    AD  (RawWrite Read) "R[A] = R[D] as a double: any number; else an error";
    ITOF   AD  (RawWrite RawRead) "R[A] = double of the integer R[D]";
    FTOI   AD  (RawWrite RawRead) "R[A] = integer of the double R[D], if it has an exact one; else an error";
    IADD   ABC (RawWrite RawRead RawRead) "R[A] = R[B] + R[C], wrapping";
    ISUB   ABC (RawWrite RawRead RawRead) "R[A] = R[B] - R[C], wrapping";
    IMUL   ABC (RawWrite RawRead RawRead) "R[A] = R[B] * R[C], wrapping";
    IIDIV  ABC (RawWrite RawRead RawRead) "R[A] = R[B] // R[C]; division by zero is an error";
    IMOD   ABC (RawWrite RawRead RawRead) "R[A] = R[B] % R[C]; modulo by zero is an error";
    IAND   ABC (RawWrite RawRead RawRead) "R[A] = R[B] & R[C]";
    IOR    ABC (RawWrite RawRead RawRead) "R[A] = R[B] | R[C]";
    IXOR   ABC (RawWrite RawRead RawRead) "R[A] = R[B] ~ R[C]";
    ISHL   ABC (RawWrite RawRead RawRead) "R[A] = R[B] << R[C]";
    ISHR   ABC (RawWrite RawRead RawRead) "R[A] = R[B] >> R[C]";
    INEG   AD  (RawWrite RawRead) "R[A] = -R[D], wrapping";
    INOT   AD  (RawWrite RawRead) "R[A] = ~R[D]";
    FADD   ABC (RawWrite RawRead RawRead) "R[A] = R[B] + R[C]";
    FSUB   ABC (RawWrite RawRead RawRead) "R[A] = R[B] - R[C]";
    FMUL   ABC (RawWrite RawRead RawRead) "R[A] = R[B] * R[C]";
    FDIV   ABC (RawWrite RawRead RawRead) "R[A] = R[B] / R[C]";
    FMOD   ABC (RawWrite RawRead RawRead) "R[A] = R[B] % R[C]";
    FIDIV  ABC (RawWrite RawRead RawRead) "R[A] = R[B] // R[C]";
    FPOW   ABC (RawWrite RawRead RawRead) "R[A] = R[B] ^ R[C]";
    FNEG   AD  (RawWrite RawRead) "R[A] = -R[D]";
    ILT    AD  (RawRead RawRead) "jump if R[A] < R[D]";
    ILE    AD  (RawRead RawRead) "jump if R[A] <= R[D]";
    IEQ    AD  (RawRead RawRead) "jump if R[A] == R[D]";
    INE    AD  (RawRead RawRead) "jump if R[A] ~= R[D]";
    FLT    AD  (RawRead RawRead) "jump if R[A] < R[D]";
    FNLT   AD  (RawRead RawRead) "jump if not (R[A] < R[D])";
    FLE    AD  (RawRead RawRead) "jump if R[A] <= R[D]";
    FNLE   AD  (RawRead RawRead) "jump if not (R[A] <= R[D])";
    FEQ    AD  (RawRead RawRead) "jump if R[A] == R[D]";
    FNE    AD  (RawRead RawRead) "jump if R[A] ~= R[D]";
    IULT   AD  (RawRead RawRead) "jump if R[A] < R[D], unsigned";
    INULT  AD  (RawRead RawRead) "jump if not (R[A] < R[D]), unsigned";
    ICMPF  ABC (RawRead RawRead Unsigned) "jump if the integer R[A] compares exactly with the double R[B] as C says: 0 <, 2 <=, 4 >, 6 >=, 8 ==; one more: not so";
    IBITS  ABC (RawWrite RawRead Unsigned) "R[A] = of R[B], by C: 0 leading zeros, 1 trailing zeros, 2 ones, 3 the bytes in reverse order";
    ISAR   ABC (RawWrite RawRead RawRead) "R[A] = R[B] shifted right by R[C] with its sign; to the left if R[C] is negative";
    IROL   ABC (RawWrite RawRead RawRead) "R[A] = R[B] rotated left by R[C] modulo 64";
    IMULHI ABC (RawWrite RawRead RawRead) "R[A] = the upper half of the 128-bit signed product R[B] * R[C]";
    IUDIV  ABC (RawWrite RawRead RawRead) "R[A] = R[B] / R[C], unsigned; division by zero is an error";
    IUREM  ABC (RawWrite RawRead RawRead) "R[A] = R[B] modulo R[C], unsigned; modulo zero is an error";
    RFORPREP AD (RawBase Jump) "R[A] index, R[A+1] limit, R[A+2] step: R[A+1] = iterations after the first, R[A+3] = R[A]; jump if there is none; step 0 is an error";
    RFORLOOP AD (RawBase Jump) "if R[A+1] > 0 (unsigned): R[A+1] -= 1, R[A] += R[A+2], R[A+3] = R[A], jump back, at a safepoint";
    // Structs and arrays. K is the constant of a struct's type, and where in it a field lies.
    CHECK  ABC (Read Unsigned None) [Type] "R[A] is what B says, else an error: 0 struct K, 1 array of struct K, 2 array of scalars; 4 more: or nil";
    SNEW   AD  (Write Constant) "R[A] = new struct of the type K[D]";
    SGET   ABC (RawWrite Read None) [Path] "R[A] = the scalar at K of the struct R[B]";
    SSET   ABC (RawRead Read None) [Path] "the scalar at K of the struct R[B] = R[A]";
    PGET   ABC (RawWrite Read RawRead) [Path] "R[A] = the scalar at K of element R[C] of the array R[B]";
    PSET   ABC (RawRead Read RawRead) [Path] "the scalar at K of element R[C] of the array R[B] = R[A]";
    AGETI  ABC (RawWrite Read RawRead) "R[A] = element R[C] of the array R[B], of an integer kind";
    AGETF  ABC (RawWrite Read RawRead) "R[A] = element R[C] of the array R[B], of a float kind";
    ASETI  ABC (RawRead Read RawRead) "element R[C] of the array R[B], of an integer kind, = R[A]";
    ASETF  ABC (RawRead Read RawRead) "element R[C] of the array R[B], of a float kind, = R[A]";
    ALEN   AD  (RawWrite Read) "R[A] = the length of the array R[D]";
    COPYREF ABC (Write Read Read) "R[A] = R[B], or a copy of it if it is a reference to a struct and R[C] a struct or array";
    RGETCAP  AD (RawWrite RawCapture) "R[A] = captures[D]";
    RGETCELL AD (RawWrite RawCellCapture) "R[A] = what the cell in captures[D] holds";
    RSETCELL AD (RawRead RawCellCapture) "the cell in captures[D] holds R[A]";
    RNEWCELL AD (NewRawCell RawRead) "R[A] = new raw cell that holds R[D]";
    RCELLGET AD (RawWrite RawCell) "R[A] = what the raw cell in R[D] holds";
    RCELLSET AD (RawCell RawRead) "the raw cell in R[A] holds R[D]";
}

impl Op {
    /// The operation in an instruction word, if there is one of that number.
    #[inline]
    pub fn of(word: u32) -> Option<Op> {
        ALL_OPS.get((word & 0xff) as usize).copied()
    }

    /// Its row of the table.
    pub fn row(self) -> &'static Instruction {
        &INSTRUCTIONS[self as usize]
    }

    /// Whether a `JMP` must follow it.
    pub fn is_comparison(self) -> bool {
        (Op::ISLT..=Op::ISFC).contains(&self) || (Op::ILT..=Op::ICMPF).contains(&self)
    }
}

/// Whether a word belongs to an instruction and follows it.
#[inline(always)]
pub(crate) fn is_extended(word: u32) -> bool {
    Op::of(word).is_some_and(|op| op.row().extension != Extension::None)
}

/// Operand A of an instruction word.
#[inline(always)]
pub const fn a(word: u32) -> usize {
    ((word >> 8) & 0xff) as usize
}

/// Operand B.
#[inline(always)]
pub const fn b(word: u32) -> usize {
    ((word >> 16) & 0xff) as usize
}

/// Operand C.
#[inline(always)]
pub const fn c(word: u32) -> usize {
    (word >> 24) as usize
}

/// Operand D, unsigned.
#[inline(always)]
pub const fn d(word: u32) -> usize {
    (word >> 16) as usize
}

/// Operand D, signed.
#[inline(always)]
pub const fn signed_d(word: u32) -> isize {
    (word as i32 >> 16) as isize
}

/// Operand J.
#[inline(always)]
pub const fn j(word: u32) -> isize {
    (word as i32 >> 8) as isize
}

/// An instruction word of format `ABC`.
pub const fn abc(op: Op, a: u8, b: u8, c: u8) -> u32 {
    op as u32 | (a as u32) << 8 | (b as u32) << 16 | (c as u32) << 24
}

/// An instruction word of format `AD`; a signed D is given as its two's complement.
pub const fn ad(op: Op, a: u8, d: u16) -> u32 {
    op as u32 | (a as u32) << 8 | (d as u32) << 16
}

/// An instruction word of format `J`. `j` must lie from -2^23 to 2^23 - 1.
pub const fn jump(op: Op, j: i32) -> u32 {
    op as u32 | (j as u32) << 8
}
