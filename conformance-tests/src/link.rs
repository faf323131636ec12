//! The power over the way between a handle and its storage.

/// The way between one handle and its storage, which tests interrupt: what a proxy before a server does.
///
/// A proxy in the workspace that this crate is from, `tests/databases/proxy.rs`, does it for any protocol over TCP. What is
/// done takes effect at once, also on connections that there are.
pub trait Link: Send + Sync + 'static {
    /// Lets so many more answers pass, and holds all that come after them. Requests go on reaching the storage, which does
    /// what they say.
    ///
    /// An answer is all that the storage says between two requests.
    fn hold_answers(&self, after: usize);

    /// Holds everything, in both directions: the storage is silent, and hears nothing.
    fn stall(&self);

    /// Ends the connections that there are, and what is held is lost. New ones are as good as ever.
    fn cut(&self);

    /// Lets everything pass again, what is held first.
    fn resume(&self);
}
