//! Rules of this part of the shop.
