//! Metrics indexed by an enum: the label's values are known when the program is built.

use std::fmt::{self, Debug};
use std::marker::PhantomData;
use std::ops::Index;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::{MetricType, TypedMetric};

/// The values of a label, as an enum whose variants count from 0 in the order of [`LabelValues::ALL`].
pub(super) trait LabelValues: Copy + Send + Sync + 'static {
    const ALL: &'static [Self];

    fn index(self) -> usize;
    fn text(self) -> &'static str;
}

/// Defines an enum of label values.
macro_rules! label_values {
    ($(#[$meta:meta])* pub enum $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[$variant_meta])* $variant,)+
        }

        impl $crate::metrics::labels::LabelValues for $name {
            const ALL: &'static [Self] = &[$(Self::$variant),+];

            fn index(self) -> usize {
                self as usize
            }

            fn text(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }
        }
    };
}
pub(super) use label_values;

/// One metric for each value of the label `L`. Clones share what they count.
pub(super) struct Labelled<L, M> {
    label: &'static str,
    metrics: Vec<M>,
    hidden: fn(&M) -> bool,
    values: PhantomData<L>,
}

impl<L: LabelValues, M> Labelled<L, M> {
    pub(super) fn new(label: &'static str, metric: impl Fn() -> M) -> Self {
        let metrics = L::ALL.iter().map(|_| metric()).collect();
        Self { label, metrics, hidden: |_| false, values: PhantomData }
    }

    /// Leaves metrics out of the text while `hidden` holds: for series that may never have anything to say.
    pub(super) fn hiding(mut self, hidden: fn(&M) -> bool) -> Self {
        self.hidden = hidden;
        self
    }
}

impl<L: LabelValues, M> Index<L> for Labelled<L, M> {
    type Output = M;

    fn index(&self, value: L) -> &M {
        &self.metrics[value.index()]
    }
}

impl<L, M: Clone> Clone for Labelled<L, M> {
    fn clone(&self) -> Self {
        Self { label: self.label, metrics: self.metrics.clone(), hidden: self.hidden, values: PhantomData }
    }
}

impl<L, M> Debug for Labelled<L, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Labelled").field("label", &self.label).finish_non_exhaustive()
    }
}

impl<L: LabelValues, M: EncodeMetric + TypedMetric> EncodeMetric for Labelled<L, M> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        for (value, metric) in L::ALL.iter().zip(&self.metrics).filter(|(_, metric)| !(self.hidden)(metric)) {
            metric.encode(encoder.encode_family(&[(self.label, value.text())])?)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        M::TYPE
    }
}
