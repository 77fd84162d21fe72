//! Tokens: the words and marks of Lua 5.4 (reference manual, 3.1). Vua's own words are names to the lexer; the parser
//! knows them in their places.

use alloc::rc::Rc;
use alloc::sync::Arc;

/// A place in the source: both count from 1, columns in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line.
    pub line: u32,
    /// The column.
    pub column: u32,
}

macro_rules! tokens {
    (keywords: $($keyword:ident $word:literal)*; marks: $($mark:ident $text:literal)*) => {
        /// A token.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Token {
            /// The end of the source.
            End,
            /// An identifier.
            Name(Arc<str>),
            /// A string literal's bytes.
            String(Rc<[u8]>),
            /// An integer literal.
            Integer(i64),
            /// A float literal.
            Float(f64),
            $(#[doc = concat!("`", $word, "`")] $keyword,)*
            $(#[doc = concat!("`", $text, "`")] $mark,)*
        }

        impl Token {
            /// The reserved word of this spelling.
            pub fn keyword(word: &str) -> Option<Token> {
                match word {
                    $($word => Some(Token::$keyword),)*
                    _ => None,
                }
            }

            /// How the token is named in messages.
            pub fn text(&self) -> &'static str {
                match self {
                    Token::End => "<eof>",
                    Token::Name(_) => "<name>",
                    Token::String(_) => "<string>",
                    Token::Integer(_) => "<integer>",
                    Token::Float(_) => "<number>",
                    $(Token::$keyword => $word,)*
                    $(Token::$mark => $text,)*
                }
            }
        }
    };
}

tokens! {
    keywords:
        And "and" Break "break" Do "do" Else "else" Elseif "elseif" EndWord "end" False "false" For "for"
        Function "function" Goto "goto" If "if" In "in" Local "local" Nil "nil" Not "not" Or "or"
        Repeat "repeat" Return "return" Then "then" True "true" Until "until" While "while";
    marks:
        Plus "+" Minus "-" Star "*" Slash "/" DoubleSlash "//" Percent "%" Caret "^" Hash "#" Ampersand "&"
        Tilde "~" Bar "|" ShiftLeft "<<" ShiftRight ">>" Equal "==" NotEqual "~=" LessEqual "<="
        GreaterEqual ">=" Less "<" Greater ">" Assign "=" LeftParen "(" RightParen ")" LeftBrace "{"
        RightBrace "}" LeftBracket "[" RightBracket "]" Question "?" DoubleColon "::" Semicolon ";" Colon ":" Comma ","
        Dot "." Concat ".." Ellipsis "..."
}

/// A token and where it stands.
#[derive(Clone, Debug)]
pub struct Lexeme {
    /// The token.
    pub token: Token,
    /// Where it begins.
    pub position: Position,
    /// Its first byte in the source.
    pub start: usize,
    /// The byte after its last.
    pub end: usize,
    /// The line on which it ends.
    pub last_line: u32,
    /// Whether no token precedes it on its line.
    pub begins_line: bool,
}
