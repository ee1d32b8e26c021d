//! Named dialogues: one idea each, said in a line or two.
