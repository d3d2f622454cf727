//! The next turn of a walk.

use super::script::Step;
use super::world::World;
use super::{Kind, mariadb, postgres};
use crate::random::Random;

enum Generator {
    Postgres(postgres::Generator),
    MariaDb(mariadb::Generator),
}

/// What decides where a walk goes. It knows what it has drawn, and asks the database for everything else.
pub(super) struct Walker {
    random: Random,
    generator: Generator,
    transaction: Transaction,
    service_is_up: bool,
    since_comparison: u32,
    without: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transaction {
    None,
    Open,
    WithSavepoint,
}

impl Walker {
    pub(super) fn new(kind: Kind, seed: u64, without: Vec<String>) -> Walker {
        let generator = match kind {
            Kind::Postgres(_) => Generator::Postgres(postgres::Generator::default()),
            Kind::MariaDb => Generator::MariaDb(mariadb::Generator::default()),
        };
        let random = Random::seeded(seed);
        let transaction = Transaction::None;
        Walker { random, generator, transaction, service_is_up: true, since_comparison: 0, without }
    }

    pub(super) fn turn(&mut self, world: &mut World) -> Vec<Step> {
        let mut steps = self.draw(world);
        let is_left_out = |step: &Step| self.without.iter().any(|text| step.to_string().contains(text));
        if steps.iter().any(is_left_out) {
            steps.clear();
        }
        for step in &steps {
            self.observe(step);
        }
        steps
    }

    fn draw(&mut self, world: &mut World) -> Vec<Step> {
        self.since_comparison += 1;
        if self.since_comparison == 1 {
            // Right after a comparison.
            let steps = match &mut self.generator {
                Generator::Postgres(generator) => generator.remedies(&mut self.random, world.session(0)),
                Generator::MariaDb(generator) => generator.remedies(&mut self.random, world.session(0)),
            };
            if !steps.is_empty() {
                return steps;
            }
        }
        if !self.service_is_up && self.random.below(5) == 0 {
            return vec![Step::StartService];
        }
        match self.random.below(200) {
            0..=3 if self.service_is_up => vec![Step::KillService],
            4 if self.service_is_up => vec![Step::StopService],
            5..=8 if self.service_is_up => vec![Step::HaltService],
            9..=14 if self.service_is_up => vec![Step::KillService, Step::StartService],
            15..=16 => vec![Step::KillDatabase],
            17 => vec![Step::RestartDatabase],
            18..=27 if self.service_is_up && self.transaction == Transaction::None => vec![Step::CatchUp],
            28..=39 if self.since_comparison > 5 => self.comparison(),
            _ if self.since_comparison > 40 => self.comparison(),
            40..=62 => vec![self.transaction_step()],
            _ => self.statements(world),
        }
    }

    fn comparison(&mut self) -> Vec<Step> {
        let mut steps = Vec::new();
        if self.transaction != Transaction::None {
            steps.push(Step::Sql(0, "COMMIT".into()));
        }
        steps.extend(match &mut self.generator {
            Generator::Postgres(generator) => generator.finish(),
            Generator::MariaDb(generator) => generator.finish(),
        });
        steps.push(Step::Compare);
        steps
    }

    fn transaction_step(&mut self) -> Step {
        let sql = match (self.transaction, self.random.below(10)) {
            (Transaction::None, _) => "BEGIN",
            (Transaction::Open, 0..=1) => "SAVEPOINT s",
            (Transaction::WithSavepoint, 0..=3) => "ROLLBACK TO SAVEPOINT s",
            (_, 4) => "ROLLBACK",
            _ => "COMMIT",
        };
        Step::Sql(0, sql.into())
    }

    fn statements(&mut self, world: &mut World) -> Vec<Step> {
        let in_transaction = self.transaction != Transaction::None;
        let (random, session) = (&mut self.random, world.session(0));
        match &mut self.generator {
            Generator::Postgres(generator) => generator.draw(random, session, in_transaction),
            Generator::MariaDb(generator) => generator.draw(random, session, in_transaction),
        }
    }

    fn observe(&mut self, step: &Step) {
        match step {
            Step::KillService | Step::StopService | Step::HaltService => self.service_is_up = false,
            Step::StartService | Step::CatchUp => self.service_is_up = true,
            Step::Compare => {
                self.service_is_up = true;
                self.since_comparison = 0;
                self.transaction = Transaction::None;
            }
            Step::KillDatabase | Step::RestartDatabase => {
                self.transaction = Transaction::None;
                if *step == Step::RestartDatabase && matches!(self.generator, Generator::Postgres(_)) {
                    self.service_is_up = true;
                }
                match &mut self.generator {
                    Generator::Postgres(generator) => generator.interrupted(),
                    Generator::MariaDb(generator) => generator.interrupted(),
                }
            }
            Step::Sql(0, sql) => {
                let ends_by_itself = matches!(self.generator, Generator::MariaDb(_))
                    && ["ALTER", "CREATE", "DROP", "RENAME", "TRUNCATE", "SET STATEMENT", "OPTIMIZE", "ANALYZE"]
                        .iter()
                        .any(|verb| sql.starts_with(verb));
                self.transaction = match sql.as_str() {
                    "BEGIN" => Transaction::Open,
                    "SAVEPOINT s" => Transaction::WithSavepoint,
                    "COMMIT" | "ROLLBACK" => Transaction::None,
                    _ if sql.starts_with("PREPARE TRANSACTION") || ends_by_itself => Transaction::None,
                    _ => self.transaction,
                };
            }
            Step::Sql(..) => {}
        }
    }
}
