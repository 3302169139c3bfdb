//! Writes every mutant of a file into the file itself, each behind a switch.

use std::{collections::BTreeSet, ops::Range};

use proc_macro2::LineColumn;
use syn::{
    BinOp, Block, Expr, ImplItemConst, ImplItemFn, Item, ItemFn, Pat, ReturnType, Signature, Stmt,
    TraitItemConst, TraitItemFn, TypeArray, UnOp,
    spanned::Spanned,
    visit::{self, Visit},
};

/// One change to the code.
pub struct Mutant {
    pub file: String,
    pub line: usize,
    pub what: String,
    /// Nothing but its number is written while it is off: it does not compile.
    pub dropped: bool,
}

/// The source with all mutants that are not `dropped` in it. Their numbers continue `mutants`.
pub fn instrument(
    file: &str,
    source: &str,
    mutants: &mut Vec<Mutant>,
    dropped: &BTreeSet<usize>,
) -> syn::Result<String> {
    let mut finder = Finder {
        file,
        source,
        mutants,
        dropped,
        edits: Vec::new(),
    };
    finder.visit_file(&syn::parse_file(source)?);
    let mut edits = finder.edits;
    edits.sort_by_key(|edit| (edit.range.start, usize::MAX - edit.range.end));
    Ok(render(source, &edits, 0..source.len(), 0))
}

/// A stretch of the source and what stands there instead.
struct Edit {
    range: Range<usize>,
    pieces: Vec<Piece>,
}

enum Piece {
    Text(String),
    /// A stretch of the source, with the edits inside it.
    Source(Range<usize>),
}

fn render(source: &str, edits: &[Edit], range: Range<usize>, first: usize) -> String {
    let mut text = String::new();
    let mut at = range.start;
    for (index, edit) in edits.iter().enumerate().skip(first) {
        if edit.range.start < at || edit.range.end > range.end {
            continue;
        }
        text += &source[at..edit.range.start];
        for piece in &edit.pieces {
            match piece {
                Piece::Text(piece) => text += piece,
                Piece::Source(inner) => {
                    text += &render(source, edits, inner.clone(), index + 1);
                }
            }
        }
        at = edit.range.end;
    }
    text + &source[at..range.end]
}

struct Finder<'a> {
    file: &'a str,
    source: &'a str,
    mutants: &'a mut Vec<Mutant>,
    dropped: &'a BTreeSet<usize>,
    edits: Vec<Edit>,
}

impl Finder<'_> {
    /// The switch of a new mutant, unless it was dropped.
    fn mutant(&mut self, at: LineColumn, what: impl Into<String>) -> Option<String> {
        let id = self.mutants.len();
        let dropped = self.dropped.contains(&id);
        self.mutants.push(Mutant {
            file: self.file.to_owned(),
            line: at.line,
            what: what.into(),
            dropped,
        });
        (!dropped).then(|| format!("crate::mutants::on({id})"))
    }

    fn short(&self, range: &Range<usize>) -> String {
        let text = self.source[range.clone()]
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ");
        match text.char_indices().nth(70) {
            Some((at, _)) => format!("{}…", &text[..at]),
            None => text,
        }
    }

    /// An expression that has one of `variants` for a value instead.
    fn replace(&mut self, expr: &Expr, variants: Vec<(String, Vec<Piece>)>) {
        let range = expr.span().byte_range();
        let mut pieces = vec![Piece::Text("(".into())];
        for (what, variant) in variants {
            if let Some(switch) = self.mutant(expr.span().start(), what) {
                pieces.push(Piece::Text(format!("\nif {switch} {{ ")));
                pieces.extend(variant);
                pieces.push(Piece::Text(" }\nelse ".into()));
            }
        }
        if pieces.len() > 1 {
            pieces.push(Piece::Text("{ ".into()));
            pieces.push(Piece::Source(range.clone()));
            pieces.push(Piece::Text(" })".into()));
            self.edits.push(Edit { range, pieces });
        }
    }

    /// A condition that always, or never, holds.
    fn force(&mut self, expr: &Expr, value: bool) {
        let range = expr.span().byte_range();
        let what = format!("{value} for `{}`", self.short(&range));
        let Some(switch) = self.mutant(expr.span().start(), what) else {
            return;
        };
        let (before, after) = match (value, has_let(expr)) {
            (true, _) => (format!("(\n{switch} || ("), "))"),
            (false, true) => (format!("\n!{switch} && "), ""),
            (false, false) => (format!("(\n!{switch} && ("), "))"),
        };
        self.edits.push(Edit {
            range: range.clone(),
            pieces: vec![
                Piece::Text(before),
                Piece::Source(range),
                Piece::Text(after.into()),
            ],
        });
    }

    fn condition(&mut self, expr: &Expr) {
        self.force(expr, false);
        if !has_let(expr) {
            self.force(expr, true);
        }
    }

    fn function(&mut self, signature: &Signature, block: &Block) {
        if signature.constness.is_some() || signature.ident == "fmt" || block.stmts.is_empty() {
            return;
        }
        let returned = match &signature.output {
            ReturnType::Default => "()".to_owned(),
            ReturnType::Type(_, of) => self.source[of.span().byte_range()]
                .split_whitespace()
                .collect(),
        };
        let by_value = signature
            .receiver()
            .is_some_and(|receiver| receiver.reference.is_none());
        let values: &[&str] = match returned.as_str() {
            "()" => &["()"],
            "bool" => &["true", "false"],
            "u8" | "u16" | "u32" | "u64" | "u128" | "usize" | "i64" => &["0", "1"],
            "String" => &["String::new()"],
            "Duration" => &["std::time::Duration::ZERO"],
            "&str" | "&'staticstr" => &["\"\""],
            "Self" if by_value => &["self"],
            "Result<Self,ConfigError>" if by_value => &["Ok(self)"],
            text if text.starts_with("Option<bool>") => &["None", "Some(true)", "Some(false)"],
            text if text.starts_with("Option<") => &["None"],
            text if text.starts_with("Result<()") => &["Ok(())"],
            text if text.starts_with("Result<bool,") => &["Ok(true)", "Ok(false)"],
            text if text.starts_with("Result<Option<") => &["Ok(None)"],
            text if text.starts_with("Result<u") => &["Ok(0)", "Ok(1)"],
            text if text.starts_with("Vec<") => &["Vec::new()"],
            _ => &[],
        };
        let at = block.brace_token.span.open().byte_range().end;
        for value in values {
            let what = format!("fn {} returns {value}", signature.ident);
            if let Some(switch) = self.mutant(signature.ident.span().start(), what) {
                self.edits.push(Edit {
                    range: at..at,
                    pieces: vec![Piece::Text(format!(
                        "\nif {switch} {{ return {value}; }}\n"
                    ))],
                });
            }
        }
    }
}

impl<'ast> Visit<'ast> for Finder<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        let attributes = match item {
            Item::Fn(item) => &item.attrs,
            Item::Impl(item) => &item.attrs,
            Item::Mod(item) => &item.attrs,
            Item::Const(_) | Item::Static(_) | Item::Enum(_) | Item::Macro(_) => return,
            _ => &Vec::new(),
        };
        let is_test = attributes.iter().any(|attribute| {
            self.source[attribute.span().byte_range()]
                .split_whitespace()
                .collect::<String>()
                .starts_with("#[cfg(test")
        });
        if !is_test {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_fn(&mut self, item: &'ast ItemFn) {
        if item.sig.constness.is_none() {
            self.function(&item.sig, &item.block);
            visit::visit_item_fn(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'ast ImplItemFn) {
        let is_test = item
            .attrs
            .iter()
            .any(|attribute| self.source[attribute.span().byte_range()].starts_with("#[cfg(test"));
        if item.sig.constness.is_none() && item.sig.ident != "fmt" && !is_test {
            self.function(&item.sig, &item.block);
            visit::visit_impl_item_fn(self, item);
        }
    }

    fn visit_trait_item_fn(&mut self, item: &'ast TraitItemFn) {
        if let Some(block) = &item.default {
            self.function(&item.sig, block);
        }
        visit::visit_trait_item_fn(self, item);
    }

    fn visit_impl_item_const(&mut self, _: &'ast ImplItemConst) {}
    fn visit_trait_item_const(&mut self, _: &'ast TraitItemConst) {}
    fn visit_type_array(&mut self, _: &'ast TypeArray) {}
    fn visit_expr_repeat(&mut self, expr: &'ast syn::ExprRepeat) {
        self.visit_expr(&expr.expr);
    }
    fn visit_expr_const(&mut self, _: &'ast syn::ExprConst) {}
    fn visit_generic_argument(&mut self, _: &'ast syn::GenericArgument) {}
    fn visit_pat(&mut self, _: &'ast Pat) {}

    fn visit_stmt(&mut self, stmt: &'ast Stmt) {
        if let Stmt::Expr(expr, Some(_)) = stmt
            && is_effect(expr)
        {
            let range = stmt.span().byte_range();
            let what = format!("without `{}`", self.short(&range));
            if let Some(switch) = self.mutant(stmt.span().start(), what) {
                self.edits.push(Edit {
                    range: range.clone(),
                    pieces: vec![
                        Piece::Text(format!("\nif !{switch} {{ ")),
                        Piece::Source(range),
                        Piece::Text(" }".into()),
                    ],
                });
            }
        }
        visit::visit_stmt(self, stmt);
    }

    fn visit_expr_if(&mut self, expr: &'ast syn::ExprIf) {
        if !matches!(*expr.cond, Expr::Let(_)) {
            self.condition(&expr.cond);
        } else {
            self.force(&expr.cond, false);
        }
        visit::visit_expr_if(self, expr);
    }

    fn visit_expr_match(&mut self, expr: &'ast syn::ExprMatch) {
        let ends_open = expr
            .arms
            .last()
            .is_some_and(|arm| arm.guard.is_none() && takes_all(&arm.pat));
        for (index, arm) in expr.arms.iter().enumerate() {
            match &arm.guard {
                Some((_, guard)) => self.condition(guard),
                None if ends_open && index + 1 < expr.arms.len() => {
                    let range = arm.pat.span().byte_range();
                    let what = format!("without the arm `{}`", self.short(&range));
                    if let Some(switch) = self.mutant(arm.pat.span().start(), what) {
                        self.edits.push(Edit {
                            range: range.end..range.end,
                            pieces: vec![Piece::Text(format!("\nif !{switch} "))],
                        });
                    }
                }
                None => {}
            }
        }
        visit::visit_expr_match(self, expr);
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        let name = call.method.to_string();
        let other = match name.as_str() {
            "all" => "any",
            "any" => "all",
            "min" => "max",
            "max" => "min",
            "is_some" => "is_none",
            "is_none" => "is_some",
            "is_ok" => "is_err",
            "is_err" => "is_ok",
            "first" if call.args.is_empty() => "last",
            "last" if call.args.is_empty() => "first",
            "starts_with" => "ends_with",
            "ends_with" => "starts_with",
            _ => "",
        };
        if matches!(
            name.as_str(),
            "filter"
                | "any"
                | "all"
                | "is_some_and"
                | "is_none_or"
                | "find"
                | "position"
                | "retain"
        ) && let Some(Expr::Closure(closure)) = call.args.first()
            && !matches!(*closure.body, Expr::Block(_))
        {
            self.condition(&closure.body);
        }
        let range = call.span().byte_range();
        let method = call.method.span().byte_range();
        let mut variants = Vec::new();
        if !other.is_empty() {
            variants.push((
                format!("{other} for {name} in `{}`", self.short(&range)),
                vec![
                    Piece::Source(range.start..method.start),
                    Piece::Text(other.into()),
                    Piece::Source(method.end..range.end),
                ],
            ));
        }
        if matches!(
            name.as_str(),
            "contains" | "contains_key" | "is_empty" | "eq_ignore_ascii_case"
        ) {
            variants.push((
                format!("not `{}`", self.short(&range)),
                vec![Piece::Text("!".into()), Piece::Source(range.clone())],
            ));
        }
        if !variants.is_empty() {
            let expr = Expr::MethodCall(call.clone());
            self.replace(&expr, variants);
        }
        visit::visit_expr_method_call(self, call);
    }

    fn visit_expr_unary(&mut self, expr: &'ast syn::ExprUnary) {
        if matches!(expr.op, UnOp::Not(_)) {
            let whole = Expr::Unary(expr.clone());
            let range = whole.span().byte_range();
            self.replace(
                &whole,
                vec![(
                    format!("no `!` in `{}`", self.short(&range)),
                    vec![Piece::Source(expr.expr.span().byte_range())],
                )],
            );
        }
        visit::visit_expr_unary(self, expr);
    }

    fn visit_expr_binary(&mut self, expr: &'ast syn::ExprBinary) {
        let whole = Expr::Binary(expr.clone());
        let range = whole.span().byte_range();
        let (left, right) = (
            expr.left.span().byte_range(),
            expr.right.span().byte_range(),
        );
        let operator = self.source[expr.op.span().byte_range()].to_owned();
        let others: &[&str] = match expr.op {
            BinOp::Eq(_) => &["!="],
            BinOp::Ne(_) => &["=="],
            BinOp::Lt(_) => &["<=", ">="],
            BinOp::Le(_) => &["<", ">"],
            BinOp::Gt(_) => &[">=", "<="],
            BinOp::Ge(_) => &[">", "<"],
            BinOp::Add(_) => &["-"],
            BinOp::Sub(_) => &["+"],
            BinOp::Mul(_) => &["+"],
            BinOp::Div(_) => &["*"],
            BinOp::Rem(_) => &["/"],
            BinOp::BitAnd(_) => &["|"],
            BinOp::BitOr(_) => &["&"],
            BinOp::BitXor(_) => &["|"],
            BinOp::AddAssign(_) => &["-="],
            BinOp::SubAssign(_) => &["+="],
            _ => &[],
        };
        let mut variants: Vec<_> = others
            .iter()
            .map(|other| {
                (
                    format!("{other} for {operator} in `{}`", self.short(&range)),
                    vec![
                        Piece::Source(left.clone()),
                        Piece::Text(format!(" {other} ")),
                        Piece::Source(right.clone()),
                    ],
                )
            })
            .collect();
        if matches!(expr.op, BinOp::And(_) | BinOp::Or(_)) {
            if has_let(&whole) {
                for operand in [&expr.left, &expr.right] {
                    let is_chain = matches!(**operand, Expr::Binary(ref inner) if matches!(inner.op, BinOp::And(_)));
                    if !has_let(operand) && !is_chain {
                        self.force(operand, true);
                    }
                }
            } else {
                for kept in [left, right] {
                    variants.push((
                        format!("only `{}` of `{}`", self.short(&kept), self.short(&range)),
                        vec![Piece::Source(kept)],
                    ));
                }
            }
        }
        if !variants.is_empty() {
            self.replace(&whole, variants);
        }
        visit::visit_expr_binary(self, expr);
    }
}

/// Whether a `let` of a condition's chain stands in an expression.
fn has_let(expr: &Expr) -> bool {
    match expr {
        Expr::Let(_) => true,
        Expr::Binary(binary) => has_let(&binary.left) || has_let(&binary.right),
        _ => false,
    }
}

fn takes_all(pattern: &Pat) -> bool {
    match pattern {
        Pat::Wild(_) => true,
        // A name in capitals is a constant's or a variant's.
        Pat::Ident(name) => name.ident.to_string().starts_with(char::is_lowercase),
        _ => false,
    }
}

/// Whether a statement may be left out.
fn is_effect(expr: &Expr) -> bool {
    match expr {
        Expr::Call(_) | Expr::MethodCall(_) | Expr::Await(_) | Expr::Try(_) => true,
        // Without the only assignment of a variable nothing compiles.
        Expr::Assign(assign) => !matches!(*assign.left, Expr::Path(_)),
        Expr::Binary(binary) => matches!(
            binary.op,
            BinOp::AddAssign(_) | BinOp::SubAssign(_) | BinOp::BitOrAssign(_)
        ),
        _ => false,
    }
}
