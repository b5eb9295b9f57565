//! Checkpoints: everything that a killed training needs to end in the same weights.
//!
//! One safetensors file beside the output: variables and both moments in single precision, and the iteration, the fixed
//! length, the running losses and the fingerprint of the configuration in its metadata. It is written under another name and
//! renamed, so that a kill leaves the old one or the new one.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use super::adam::{Adam, HostMoments};
use super::error::TrainError;
use super::trainer::{Losses, Trainer};

const STATE_KEY: &str = "state";
/// Number of the recipe: raised whenever the same configuration comes to train something else, so that no checkpoint is carried
/// from one recipe to another. 2: noise of every size and flicker in the moved view.
pub(super) const RECIPE: u32 = 2;

#[derive(Debug, Serialize, Deserialize)]
struct State {
    fingerprint: String,
    iteration: u32,
    steps: u32,
    main: u32,
    steady: u32,
    mean: [f32; 6],
    #[serde(default)]
    flat_views: u32,
    #[serde(default)]
    lost_steps: u32,
}

/// What a checkpoint calls a variable.
pub(super) fn checkpoint_name(variable: &str) -> String {
    format!("weight.{variable}")
}

/// Where the checkpoint of an output file lies.
pub fn checkpoint_path(out: &Path) -> PathBuf {
    let mut name = out.file_name().unwrap_or_default().to_owned();
    name.push(".checkpoint");
    out.with_file_name(name)
}

/// Writes `bytes` so that the file is the old or the new one, whatever happens meanwhile.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), TrainError> {
    let part = part_path(path);
    let write = || {
        use std::io::Write;
        let mut file = std::fs::File::create(&part)?;
        file.write_all(bytes)?;
        file.sync_data()?;
        std::fs::rename(&part, path)
    };
    write().map_err(|source| TrainError::io(path, source))
}

/// Finds out whether `path` can be written, before hours go into what it shall hold.
pub(super) fn try_writing(path: &Path) -> Result<(), TrainError> {
    if path.is_dir() {
        return Err(TrainError::io(path, std::io::ErrorKind::IsADirectory.into()));
    }
    let part = part_path(path);
    let tried = std::fs::File::create(&part).and_then(|_| std::fs::remove_file(&part));
    tried.map_err(|source| TrainError::io(path, source))
}

fn part_path(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    path.with_file_name(name)
}

impl Trainer {
    /// Identifies what decides the resulting weights: recipe, configuration, painting, photos and features.
    pub fn fingerprint(&self) -> String {
        let mut config = self.config.clone();
        // Where things lie and how often they are saved decides nothing; a length in time is fixed by the checkpoint.
        for path in [&mut config.style, &mut config.photos, &mut config.features, &mut config.out] {
            path.clear();
        }
        (config.preview, config.start) = (None, None);
        (config.preview_every, config.checkpoint_every, config.fresh) = (0, 0, false);
        // Cards of one number or another are one kind; a card and a processor round otherwise.
        config.device = config.device.kind();
        let mut hasher = blake3::Hasher::new();
        hasher.update(&RECIPE.to_le_bytes());
        hasher.update(format!("{config:?}").as_bytes());
        hasher.update(self.photos().digest().as_bytes());
        hasher.update(self.features().digest().as_bytes());
        hasher.update(self.start().unwrap_or("random").as_bytes());
        hasher.update(self.style_digest().as_bytes());
        hasher.finalize().to_hex().to_string()
    }

    /// Writes a checkpoint of a training of `main` and `steady` iterations.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, path: &Path, (main, steady): (u32, u32)) -> Result<(), TrainError> {
        let mut tensors: BTreeMap<String, (Vec<usize>, Vec<u8>)> = BTreeMap::new();
        let bytes = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
        let HostMoments { first, second } = self.adam.moments()?;
        for (index, (name, variable)) in self.learner.variables().iter().enumerate() {
            let shape = variable.dims().to_vec();
            let values = variable.as_tensor().flatten_all()?.to_vec1::<f32>()?;
            tensors.insert(checkpoint_name(name), (shape.clone(), bytes(&values)));
            tensors.insert(format!("first.{name}"), (shape.clone(), bytes(&first[index])));
            tensors.insert(format!("second.{name}"), (shape, bytes(&second[index])));
        }
        let mean = self.mean;
        let state = State {
            fingerprint: self.fingerprint(),
            iteration: self.iteration,
            steps: self.adam.steps(),
            main,
            steady,
            mean: [mean.total, mean.content, mean.style, mean.variation, mean.range, mean.steadiness],
            flat_views: self.flat_views,
            lost_steps: self.lost_steps,
        };
        let refuse = |reason: String| TrainError::Checkpoint { path: path.to_owned(), reason };
        let state = serde_json::to_string(&state).map_err(|error| refuse(error.to_string()))?;
        let mut views = BTreeMap::new();
        for (name, (shape, bytes)) in &tensors {
            let view = TensorView::new(Dtype::F32, shape.clone(), bytes).map_err(|error| refuse(error.to_string()))?;
            views.insert(name.clone(), view);
        }
        let metadata = HashMap::from([(STATE_KEY.to_owned(), state)]);
        let file = safetensors::serialize(views, Some(metadata)).map_err(|error| refuse(error.to_string()))?;
        write_whole(path, &file)
    }

    /// Goes on from a checkpoint; returns the lengths of its stages.
    ///
    /// # Errors
    /// When the file is damaged or belongs to another training.
    pub fn restore(&mut self, path: &Path) -> Result<(u32, u32), TrainError> {
        let refuse = |reason: String| TrainError::Checkpoint { path: path.to_owned(), reason };
        let bytes = std::fs::read(path).map_err(|source| TrainError::io(path, source))?;
        let (_, metadata) = SafeTensors::read_metadata(&bytes).map_err(|error| refuse(format!("damaged: {error}")))?;
        let state = metadata.metadata().as_ref().and_then(|metadata| metadata.get(STATE_KEY));
        let state = state.ok_or_else(|| refuse("it holds no training state".to_owned()))?;
        let state: State = serde_json::from_str(state).map_err(|error| refuse(format!("damaged: {error}")))?;
        if state.fingerprint != self.fingerprint() {
            return Err(refuse(
                "it belongs to a training with another painting, photos, features, device or settings, or of another version of this program; remove it to start anew"
                    .to_owned(),
            ));
        }
        let tensors = SafeTensors::deserialize(&bytes).map_err(|error| refuse(format!("damaged: {error}")))?;
        let values = |name: String, count: usize| -> Result<Vec<f32>, TrainError> {
            let view = tensors.tensor(&name).map_err(|error| refuse(format!("{name}: {error}")))?;
            let (chunks, _) = view.data().as_chunks::<4>();
            if view.dtype() != Dtype::F32 || chunks.len() != count {
                return Err(refuse(format!("{name}: expected {count} floats, found {}", chunks.len())));
            }
            Ok(chunks.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect())
        };
        let (mut first, mut second) = (Vec::new(), Vec::new());
        for (name, variable) in self.learner.variables() {
            let count = variable.elem_count();
            let weights = values(checkpoint_name(name), count)?;
            variable.set(&Tensor::from_vec(weights, variable.shape(), variable.device())?)?;
            first.push(values(format!("first.{name}"), count)?);
            second.push(values(format!("second.{name}"), count)?);
        }
        self.adam = Adam::restore(first, second, state.steps, self.config.clip);
        (self.iteration, self.flat_views, self.lost_steps) = (state.iteration, state.flat_views, state.lost_steps);
        let [total, content, style, variation, range, steadiness] = state.mean;
        self.mean = Losses { total, content, style, variation, range, steadiness };
        Ok((state.main, state.steady))
    }
}
