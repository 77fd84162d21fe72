//! `docs/bytecode.md` is made from the table of instructions. `VUA_WRITE_PAGES=1` writes it anew; without that the test says where it differs.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use vua::bytecode::instructions::{ALL_OPS, Extension, Format, Operand};

const HEAD: &str = "\
# The bytecode

A function is a list of words of 32 bits. An instruction is a word; some have an extension word behind them. The lowest eight bits are the
operation. The rest is divided in one of three ways:

| format | bits 8 to 16 | bits 16 to 24 | bits 24 to 32 |
| --- | --- | --- | --- |
| ABC | A | B | C |
| AD | A | D | D |
| J | J | J | J |

Registers hold tagged values, but for those of a range that the function declares, which hold raw words: integers and doubles of
`reg` and `f64` variables. The verifier proves for each operand what the table says of it, whoever made the bytecode; the interpreter
relies on it and checks nothing again. The numbers of the operations belong to one version of the bytecode, which compiled files
name (`vua/src/bytecode/binary.rs`).

This page is made from the table in `vua/src/bytecode/instructions.rs`, from which the disassembler and the verifier work too.

## Operands

| operand | what it is |
| --- | --- |
";

fn meaning(operand: Operand) -> &'static str {
    match operand {
        Operand::None => "unused",
        Operand::Read => "a tagged register that is read",
        Operand::Write => "a tagged register that is written",
        Operand::Base => "the first of a run of tagged registers",
        Operand::RawRead => "a raw register that is read",
        Operand::RawWrite => "a raw register that is written",
        Operand::RawBase => "the first of the four raw registers of a loop",
        Operand::Unsigned => "an unsigned number",
        Operand::Signed => "a signed number",
        Operand::Constant => "the index of a constant",
        Operand::NumberConstant => "the index of a constant that is a number",
        Operand::Jump => "a distance in words, from the next instruction",
        Operand::Child => "the index of a function declared in this one",
        Operand::Capture => "the index of a capture that holds a value",
        Operand::CellCapture => "the index of a capture that holds a cell with a value",
        Operand::RawCapture => "the index of a capture that holds a raw word",
        Operand::RawCellCapture => "the index of a capture that holds a cell with a raw word",
        _ => "a register that holds a cell, or gets one",
    }
}

fn page() -> String {
    let mut page = String::from(HEAD);
    let mut seen = Vec::new();
    for op in ALL_OPS {
        for operand in op.row().operands {
            if operand != Operand::None && !seen.contains(&operand) {
                seen.push(operand);
            }
        }
    }
    for operand in seen {
        let _ = writeln!(page, "| {operand:?} | {} |", meaning(operand));
    }
    page.push_str(
        "\n## Instructions\n\n| instruction | format | operands | extension | effect |\n| --- | --- | --- | --- | --- |\n",
    );
    for op in ALL_OPS {
        let row = op.row();
        let fields: &[&str] = match row.format {
            Format::ABC => &["A", "B", "C"],
            Format::AD => &["A", "D"],
            Format::J => &["J"],
        };
        let operands: Vec<String> = fields
            .iter()
            .zip(row.operands)
            .filter(|(_, operand)| *operand != Operand::None)
            .map(|(field, operand)| format!("{field} {operand:?}"))
            .collect();
        let extension = match row.extension {
            Extension::None => String::new(),
            extension => format!("{extension:?}"),
        };
        let _ = writeln!(
            page,
            "| {} | {:?} | {} | {extension} | {} |",
            row.name,
            row.format,
            operands.join(", "),
            row.effect.replace('|', "\\|")
        );
    }
    page
}

#[test]
fn the_page_is_what_the_table_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/bytecode.md");
    let page = page();
    if std::env::var_os("VUA_WRITE_PAGES").is_some() {
        fs::write(&path, &page).expect("the page can be written");
    }
    let written = fs::read_to_string(&path).expect("the page exists");
    let difference = written.lines().zip(page.lines()).find(|(a, b)| a != b);
    assert!(
        difference.is_none() && written.len() == page.len(),
        "docs/bytecode.md is not up to date (VUA_WRITE_PAGES=1 makes it so): {difference:?}"
    );
}
