//! A program as text that can be cut: a tree whose nodes say what may be left out or replaced while it stays a program.

/// A piece of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// Text that belongs to what is around it.
    Text(String),
    /// Statements in a row, each a [`Node::Statement`].
    Block(Vec<Node>),
    /// A statement: may be left out, or replaced by the blocks in it.
    Statement(Vec<Node>),
    /// An expression: may be replaced by a simpler one, or by an expression in it.
    Expression(Vec<Node>),
}

use Node::{Block, Expression, Statement, Text};

impl Node {
    /// The program's text.
    pub fn text(&self) -> String {
        let mut out = String::new();
        self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) {
        match self {
            Text(text) => out.push_str(text),
            Block(parts) => {
                for statement in parts {
                    statement.write(out);
                    out.push('\n');
                }
            }
            Statement(parts) | Expression(parts) => parts.iter().for_each(|part| part.write(out)),
        }
    }

    fn parts(&self) -> &[Node] {
        match self {
            Text(_) => &[],
            Block(parts) | Statement(parts) | Expression(parts) => parts,
        }
    }

    fn at_mut(&mut self, path: &[usize]) -> &mut Node {
        let mut node = self;
        for &i in path {
            node = match node {
                Text(_) => unreachable!("a path leads through nodes with parts"),
                Block(parts) | Statement(parts) | Expression(parts) => &mut parts[i],
            };
        }
        node
    }

    /// The paths to all nodes that `wanted` picks, outer ones first.
    fn paths(&self, wanted: &dyn Fn(&Node) -> bool) -> Vec<Vec<usize>> {
        fn walk(
            node: &Node,
            path: &mut Vec<usize>,
            wanted: &dyn Fn(&Node) -> bool,
            found: &mut Vec<Vec<usize>>,
        ) {
            if wanted(node) {
                found.push(path.clone());
            }
            for (i, part) in node.parts().iter().enumerate() {
                path.push(i);
                walk(part, path, wanted, found);
                path.pop();
            }
        }
        let mut found = Vec::new();
        walk(self, &mut Vec::new(), wanted, &mut found);
        found
    }

    fn at(&self, path: &[usize]) -> &Node {
        path.iter().fold(self, |node, &i| &node.parts()[i])
    }
}

/// The smallest program that can be cut out of `program` and is still `bad`. `tries` bounds how often that is asked.
pub fn shrink(program: &Node, mut tries: usize, bad: &mut dyn FnMut(&Node) -> bool) -> Node {
    let mut best = program.clone();
    let mut attempt = |best: &mut Node, candidate: Node, tries: &mut usize| {
        if *tries == 0 || candidate == *best {
            return false;
        }
        *tries -= 1;
        let good = bad(&candidate);
        if good {
            *best = candidate;
        }
        good
    };
    loop {
        let mut progress = false;
        // Whole runs of statements, long ones first.
        let mut next = 0;
        loop {
            let paths = best.paths(&|node| matches!(node, Block(_)));
            let Some(path) = paths.get(next) else { break };
            next += 1;
            let mut size = best.at(path).parts().len();
            while size > 0 {
                let mut from = 0;
                while from < best.at(path).parts().len() {
                    let mut candidate = best.clone();
                    if let Block(parts) = candidate.at_mut(path) {
                        parts.drain(from..(from + size).min(parts.len()));
                    }
                    if attempt(&mut best, candidate, &mut tries) {
                        progress = true;
                    } else {
                        from += size;
                    }
                }
                size /= 2;
            }
        }
        // A statement gives way to the blocks in it.
        let mut next = 0;
        loop {
            let paths = best.paths(&|node| matches!(node, Statement(_)));
            let Some(path) = paths.get(next) else { break };
            next += 1;
            let inner: Vec<Node> = best
                .at(path)
                .parts()
                .iter()
                .filter(|part| matches!(part, Block(_)))
                .cloned()
                .collect();
            for block in inner {
                let mut candidate = best.clone();
                *candidate.at_mut(path) = block;
                if attempt(&mut best, candidate, &mut tries) {
                    progress = true;
                    break;
                }
            }
        }
        // An expression gives way to a simpler one.
        let mut next = 0;
        loop {
            let paths = best.paths(&|node| matches!(node, Expression(_)));
            let Some(path) = paths.get(next) else { break };
            next += 1;
            let here = best.at(path);
            let mut simpler: Vec<Node> = Vec::new();
            if here.text().len() > 3 {
                simpler.extend(["nil", "1", "'a'"].map(|text| Text(text.into())));
            }
            simpler.extend(
                here.paths(&|node| matches!(node, Expression(_)))
                    .iter()
                    .skip(1)
                    .map(|inner| here.at(inner).clone()),
            );
            for node in simpler {
                let mut candidate = best.clone();
                *candidate.at_mut(path) = node;
                if attempt(&mut best, candidate, &mut tries) {
                    progress = true;
                    break;
                }
            }
        }
        if !progress || tries == 0 {
            return best;
        }
    }
}
