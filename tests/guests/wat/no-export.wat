;; A component that exports nothing: it is no subscriber.
(component)
