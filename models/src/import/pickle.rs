//! The part of Python's pickle that a state dictionary is written in, read without running anything.
//!
//! Opcodes are those of Python's `pickletools`. Values live in one list and name each other by number, so that neither sharing
//! nor nesting can multiply or recurse; every opcode adds at most as many values as it reads bytes.

use super::reader::Reader;
use super::refused;
use crate::ModelError;
use std::collections::HashMap;

/// The most opcodes of a pickle; a style network's has some thousands. Bounds memory as well, since an opcode makes at most one value.
const OPCODES_MAX: usize = 1 << 20;
/// The most arguments of a tensor's constructor.
const TENSOR_ARGUMENTS_MAX: usize = 8;
/// The longest name of Python that is put together from two texts, in bytes; each of them may be recalled any number of times.
const GLOBAL_BYTES_MAX: usize = 256;
const WHAT: &str = "the checkpoint's pickle";

/// Number of a value in its [`Values`].
pub(super) type Id = usize;

/// A value of the pickle.
#[derive(Debug, Clone)]
pub(super) enum Value {
    /// None, a float, a boolean: of no meaning here.
    Other,
    /// An integer that fits.
    Int(i64),
    /// Text.
    Text(String),
    /// A tuple.
    Tuple(Vec<Id>),
    /// A list.
    List(Vec<Id>),
    /// A dictionary, in the order of insertion.
    Dict(Vec<(Id, Id)>),
    /// A name of Python, as `torch FloatStorage`.
    Global(String),
    /// What the file refers to by a persistent id.
    Persistent(Id),
    /// A tensor: the arguments of its constructor.
    Tensor(Vec<Id>),
}

/// Every value of a pickle.
#[derive(Debug, Default)]
pub(super) struct Values {
    values: Vec<Value>,
}

impl Values {
    pub(super) fn get(&self, id: Id) -> &Value {
        &self.values[id]
    }

    fn push(&mut self, value: Value) -> Id {
        self.values.push(value);
        self.values.len() - 1
    }
}

/// Reads one pickle and returns its values and the root.
pub(super) fn read(reader: &mut Reader<'_>) -> Result<(Values, Id), ModelError> {
    let mut machine = Machine { values: Values::default(), stack: Vec::new(), marks: Vec::new(), memo: HashMap::new() };
    for _ in 0..OPCODES_MAX {
        let opcode = reader.u8()?;
        if opcode == b'.' {
            let root = machine.pop()?;
            return Ok((machine.values, root));
        }
        machine.step(opcode, reader)?;
    }
    Err(refused(format!("{WHAT} has more than {OPCODES_MAX} opcodes: is it a style network's?")))
}

struct Machine {
    values: Values,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

impl Machine {
    fn step(&mut self, opcode: u8, reader: &mut Reader<'_>) -> Result<(), ModelError> {
        match opcode {
            // PROTO and FRAME say nothing that is needed.
            0x80 => drop(reader.u8()?),
            0x95 => drop(reader.u64()?),
            b'(' => self.marks.push(self.stack.len()),
            b'0' => drop(self.pop()?),
            b'}' => self.push(Value::Dict(Vec::new())),
            b']' => self.push(Value::List(Vec::new())),
            b')' => self.push(Value::Tuple(Vec::new())),
            b'N' | 0x88 | 0x89 => self.push(Value::Other),
            b'G' => {
                reader.take(8)?;
                self.push(Value::Other);
            }
            b'K' | b'M' | b'J' | 0x8a => self.integer(opcode, reader)?,
            b'X' | b'T' | b'U' | 0x8c => self.text(opcode, reader)?,
            b't' | 0x85..=0x87 => self.tuple(opcode)?,
            b'q' | b'r' | 0x94 | b'h' | b'j' => self.memo(opcode, reader)?,
            b'c' => {
                let name = format!("{} {}", reader.line()?, reader.line()?);
                self.push(Value::Global(name));
            }
            0x93 => self.stack_global()?,
            b'Q' => {
                let id = self.pop()?;
                self.push(Value::Persistent(id));
            }
            b'a' | b'e' | b's' | b'u' => self.collect(opcode)?,
            b'R' => self.reduce()?,
            // BUILD sets attributes (PyTorch's notes on versions); the object stays what it is.
            b'b' => drop(self.pop()?),
            _ => {
                return Err(refused(format!(
                    "{WHAT} has opcode {opcode:#04x}, which no state dictionary needs: save the network with torch.save(net.state_dict(), ...)"
                )));
            }
        }
        Ok(())
    }

    fn push(&mut self, value: Value) {
        let id = self.values.push(value);
        self.stack.push(id);
    }

    fn pop(&mut self) -> Result<Id, ModelError> {
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= floor {
            return Err(refused(format!("{WHAT} takes a value from before its group")));
        }
        self.stack.pop().ok_or_else(|| refused(format!("{WHAT} takes a value that is not there")))
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Id>, ModelError> {
        let mark = self.marks.pop().ok_or_else(|| refused(format!("{WHAT} ends a group that it did not begin")))?;
        Ok(self.stack.split_off(mark.min(self.stack.len())))
    }

    fn integer(&mut self, opcode: u8, reader: &mut Reader<'_>) -> Result<(), ModelError> {
        let value = match opcode {
            b'K' => Value::Int(i64::from(reader.u8()?)),
            b'M' => Value::Int(i64::from(reader.u16()?)),
            b'J' => Value::Int(i64::from(reader.u32()?.cast_signed())),
            _ => {
                let len = usize::from(reader.u8()?);
                let bytes = reader.take(len)?;
                let mut wide = [if bytes.last().is_some_and(|last| *last >= 0x80) { 0xff } else { 0 }; 8];
                match wide.get_mut(..len) {
                    Some(low) => {
                        low.copy_from_slice(bytes);
                        Value::Int(i64::from_le_bytes(wide))
                    }
                    // The magic number of the legacy format; nobody computes with it.
                    None => Value::Other,
                }
            }
        };
        self.push(value);
        Ok(())
    }

    fn text(&mut self, opcode: u8, reader: &mut Reader<'_>) -> Result<(), ModelError> {
        let len = match opcode {
            b'X' | b'T' => reader.u32()? as usize,
            _ => usize::from(reader.u8()?),
        };
        let text = String::from_utf8_lossy(reader.take(len)?).into_owned();
        self.push(Value::Text(text));
        Ok(())
    }

    fn tuple(&mut self, opcode: u8) -> Result<(), ModelError> {
        let items = if opcode == b't' {
            self.pop_to_mark()?
        } else {
            let mut items = Vec::new();
            for _ in 0..opcode - 0x84 {
                items.insert(0, self.pop()?);
            }
            items
        };
        self.push(Value::Tuple(items));
        Ok(())
    }

    fn memo(&mut self, opcode: u8, reader: &mut Reader<'_>) -> Result<(), ModelError> {
        let key = match opcode {
            b'q' | b'h' => u32::from(reader.u8()?),
            b'r' | b'j' => reader.u32()?,
            _ => self.memo.len() as u32,
        };
        if matches!(opcode, b'h' | b'j') {
            let id = self
                .memo
                .get(&key)
                .ok_or_else(|| refused(format!("{WHAT} recalls value {key}, which it did not keep")))?;
            self.stack.push(*id);
            return Ok(());
        }
        let top = *self.stack.last().ok_or_else(|| refused(format!("{WHAT} keeps a value that is not there")))?;
        self.memo.insert(key, top);
        Ok(())
    }

    fn stack_global(&mut self) -> Result<(), ModelError> {
        let (name, module) = (self.pop()?, self.pop()?);
        let (Value::Text(name), Value::Text(module)) = (self.values.get(name), self.values.get(module)) else {
            return Err(refused(format!("{WHAT} names something of Python with no text")));
        };
        if name.len() + module.len() > GLOBAL_BYTES_MAX {
            return Err(refused(format!("{WHAT} names something of Python with more than {GLOBAL_BYTES_MAX} bytes")));
        }
        let global = Value::Global(format!("{module} {name}"));
        self.push(global);
        Ok(())
    }

    /// APPEND, APPENDS, SETITEM and SETITEMS.
    fn collect(&mut self, opcode: u8) -> Result<(), ModelError> {
        let mut items = match opcode {
            b'a' => vec![self.pop()?],
            b's' => {
                let value = self.pop()?;
                vec![self.pop()?, value]
            }
            _ => self.pop_to_mark()?,
        };
        let target =
            *self.stack.last().ok_or_else(|| refused(format!("{WHAT} fills a collection that is not there")))?;
        match (&mut self.values.values[target], opcode) {
            (Value::List(list), b'a' | b'e') => list.append(&mut items),
            (Value::Dict(dict), b's' | b'u') => {
                let (pairs, rest) = items.as_chunks::<2>();
                if !rest.is_empty() {
                    return Err(refused(format!("{WHAT} has a key without a value")));
                }
                dict.extend(pairs.iter().map(|[key, value]| (*key, *value)));
            }
            _ => return Err(refused(format!("{WHAT} fills something that is no list or dictionary"))),
        }
        Ok(())
    }

    /// Calls of Python: dictionaries and tensors are made, all else is refused by name.
    fn reduce(&mut self) -> Result<(), ModelError> {
        let (arguments, callee) = (self.pop()?, self.pop()?);
        let (Value::Tuple(arguments), Value::Global(callee)) = (self.values.get(arguments), self.values.get(callee))
        else {
            return Err(refused(format!("{WHAT} calls something that has no name")));
        };
        let made = match (callee.as_str(), arguments.as_slice()) {
            ("collections OrderedDict", []) => Value::Dict(Vec::new()),
            ("torch._utils _rebuild_tensor_v2" | "torch._utils _rebuild_tensor", arguments)
                if arguments.len() <= TENSOR_ARGUMENTS_MAX =>
            {
                Value::Tensor(arguments.to_vec())
            }
            ("torch._utils _rebuild_parameter", [tensor, ..]) => match self.values.get(*tensor) {
                Value::Tensor(arguments) => Value::Tensor(arguments.clone()),
                _ => return Err(refused(format!("{WHAT} makes a parameter of something that is no tensor"))),
            },
            (name, _) => {
                return Err(refused(format!(
                    "{WHAT} would call {name}, which is not run here: save the network with torch.save(net.state_dict(), ...)"
                )));
            }
        };
        self.push(made);
        Ok(())
    }
}
