//! Messages of an ONNX file (`onnx.proto3` of the ONNX standard, IR version 10), as far as models without training, sparse
//! tensors and functions have them; fields that are not here are skipped when a file is read. Owns names and field numbers,
//! which are the standard's.

/// An enumeration with the standard's numbers and names.
macro_rules! numbered {
    ($(#[$about:meta])* $name:ident { $($variant:ident = $number:literal, $text:literal;)* }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
        #[repr(i32)]
        #[allow(missing_docs, reason = "the standard's names")]
        pub enum $name { $($variant = $number,)* }

        impl $name {
            /// The standard's name.
            #[must_use]
            pub fn as_str_name(self) -> &'static str {
                match self { $($name::$variant => $text,)* }
            }
        }
    };
}
use numbered;

/// A model.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ModelProto {
    /// Version of the format.
    #[prost(int64, tag = "1")]
    pub ir_version: i64,
    /// What has written it.
    #[prost(string, tag = "2")]
    pub producer_name: String,
    /// Its version.
    #[prost(string, tag = "3")]
    pub producer_version: String,
    /// Who names the model.
    #[prost(string, tag = "4")]
    pub domain: String,
    /// Version of the model.
    #[prost(int64, tag = "5")]
    pub model_version: i64,
    /// For people.
    #[prost(string, tag = "6")]
    pub doc_string: String,
    /// What is computed.
    #[prost(message, optional, tag = "7")]
    pub graph: Option<GraphProto>,
    /// Versions of the operators.
    #[prost(message, repeated, tag = "8")]
    pub opset_import: Vec<OperatorSetIdProto>,
    /// Anything else.
    #[prost(message, repeated, tag = "14")]
    pub metadata_props: Vec<StringStringEntryProto>,
}

/// A set of operators.
#[derive(Clone, PartialEq, prost::Message)]
pub struct OperatorSetIdProto {
    /// Whose; empty for the standard's.
    #[prost(string, tag = "1")]
    pub domain: String,
    /// Its version.
    #[prost(int64, tag = "2")]
    pub version: i64,
}

/// A graph; nodes in the order of the data flow.
#[derive(Clone, PartialEq, prost::Message)]
pub struct GraphProto {
    /// What is computed.
    #[prost(message, repeated, tag = "1")]
    pub node: Vec<NodeProto>,
    /// Name.
    #[prost(string, tag = "2")]
    pub name: String,
    /// Constants.
    #[prost(message, repeated, tag = "5")]
    pub initializer: Vec<TensorProto>,
    /// For people.
    #[prost(string, tag = "10")]
    pub doc_string: String,
    /// Inputs.
    #[prost(message, repeated, tag = "11")]
    pub input: Vec<ValueInfoProto>,
    /// Outputs.
    #[prost(message, repeated, tag = "12")]
    pub output: Vec<ValueInfoProto>,
    /// Types of other values.
    #[prost(message, repeated, tag = "13")]
    pub value_info: Vec<ValueInfoProto>,
}

/// An operator with its operands.
#[derive(Clone, PartialEq, prost::Message)]
pub struct NodeProto {
    /// Names of its operands; empty for one that is left out.
    #[prost(string, repeated, tag = "1")]
    pub input: Vec<String>,
    /// Names of its results.
    #[prost(string, repeated, tag = "2")]
    pub output: Vec<String>,
    /// Name.
    #[prost(string, tag = "3")]
    pub name: String,
    /// The operator.
    #[prost(string, tag = "4")]
    pub op_type: String,
    /// What does not depend on values.
    #[prost(message, repeated, tag = "5")]
    pub attribute: Vec<AttributeProto>,
    /// For people.
    #[prost(string, tag = "6")]
    pub doc_string: String,
    /// Whose operator.
    #[prost(string, tag = "7")]
    pub domain: String,
}

/// An attribute; `type` says which field holds it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AttributeProto {
    /// Name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// A number.
    #[prost(float, tag = "2")]
    pub f: f32,
    /// A whole number.
    #[prost(int64, tag = "3")]
    pub i: i64,
    /// Text.
    #[prost(bytes = "vec", tag = "4")]
    pub s: Vec<u8>,
    /// A tensor.
    #[prost(message, optional, tag = "5")]
    pub t: Option<TensorProto>,
    /// A graph.
    #[prost(message, optional, tag = "6")]
    pub g: Option<GraphProto>,
    /// Numbers.
    #[prost(float, repeated, tag = "7")]
    pub floats: Vec<f32>,
    /// Whole numbers.
    #[prost(int64, repeated, tag = "8")]
    pub ints: Vec<i64>,
    /// Texts.
    #[prost(bytes = "vec", repeated, tag = "9")]
    pub strings: Vec<Vec<u8>>,
    /// Tensors.
    #[prost(message, repeated, tag = "10")]
    pub tensors: Vec<TensorProto>,
    /// Graphs.
    #[prost(message, repeated, tag = "11")]
    pub graphs: Vec<GraphProto>,
    /// For people.
    #[prost(string, tag = "13")]
    pub doc_string: String,
    /// Its type.
    #[prost(enumeration = "attribute_proto::AttributeType", tag = "20")]
    pub r#type: i32,
    /// The attribute of a function that it stands for.
    #[prost(string, tag = "21")]
    pub ref_attr_name: String,
}

/// What belongs to [`AttributeProto`].
pub mod attribute_proto {
    super::numbered! {
        /// Type of an attribute.
        AttributeType {
            Undefined = 0, "UNDEFINED";
            Float = 1, "FLOAT";
            Int = 2, "INT";
            String = 3, "STRING";
            Tensor = 4, "TENSOR";
            Graph = 5, "GRAPH";
            Floats = 6, "FLOATS";
            Ints = 7, "INTS";
            Strings = 8, "STRINGS";
            Tensors = 9, "TENSORS";
            Graphs = 10, "GRAPHS";
            SparseTensor = 11, "SPARSE_TENSOR";
            SparseTensors = 12, "SPARSE_TENSORS";
            TypeProto = 13, "TYPE_PROTO";
            TypeProtos = 14, "TYPE_PROTOS";
        }
    }
}

/// Name and type of a value.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ValueInfoProto {
    /// Name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Type.
    #[prost(message, optional, tag = "2")]
    pub r#type: Option<TypeProto>,
    /// For people.
    #[prost(string, tag = "3")]
    pub doc_string: String,
}

/// A key with its value.
#[derive(Clone, PartialEq, prost::Message)]
pub struct StringStringEntryProto {
    /// Key.
    #[prost(string, tag = "1")]
    pub key: String,
    /// Value.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// A tensor; its elements are in the field of its type, in `raw_data` or in another file.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TensorProto {
    /// Sizes.
    #[prost(int64, repeated, tag = "1")]
    pub dims: Vec<i64>,
    /// Type of an element.
    #[prost(enumeration = "tensor_proto::DataType", tag = "2")]
    pub data_type: i32,
    /// f32.
    #[prost(float, repeated, tag = "4")]
    pub float_data: Vec<f32>,
    /// i32 and narrower, also the bits of f16 and bf16.
    #[prost(int32, repeated, tag = "5")]
    pub int32_data: Vec<i32>,
    /// Texts.
    #[prost(bytes = "vec", repeated, tag = "6")]
    pub string_data: Vec<Vec<u8>>,
    /// i64.
    #[prost(int64, repeated, tag = "7")]
    pub int64_data: Vec<i64>,
    /// Name.
    #[prost(string, tag = "8")]
    pub name: String,
    /// Elements as little-endian bytes.
    #[prost(bytes = "vec", tag = "9")]
    pub raw_data: Vec<u8>,
    /// f64.
    #[prost(double, repeated, tag = "10")]
    pub double_data: Vec<f64>,
    /// u64.
    #[prost(uint64, repeated, tag = "11")]
    pub uint64_data: Vec<u64>,
    /// For people.
    #[prost(string, tag = "12")]
    pub doc_string: String,
    /// Where in another file: `location`, `offset`, `length`.
    #[prost(message, repeated, tag = "13")]
    pub external_data: Vec<StringStringEntryProto>,
    /// Where the elements are.
    #[prost(enumeration = "tensor_proto::DataLocation", optional, tag = "14")]
    pub data_location: Option<i32>,
}

/// What belongs to [`TensorProto`].
pub mod tensor_proto {
    super::numbered! {
        /// Type of an element.
        DataType {
            Undefined = 0, "UNDEFINED";
            Float = 1, "FLOAT";
            Uint8 = 2, "UINT8";
            Int8 = 3, "INT8";
            Uint16 = 4, "UINT16";
            Int16 = 5, "INT16";
            Int32 = 6, "INT32";
            Int64 = 7, "INT64";
            String = 8, "STRING";
            Bool = 9, "BOOL";
            Float16 = 10, "FLOAT16";
            Double = 11, "DOUBLE";
            Uint32 = 12, "UINT32";
            Uint64 = 13, "UINT64";
            Complex64 = 14, "COMPLEX64";
            Complex128 = 15, "COMPLEX128";
            Bfloat16 = 16, "BFLOAT16";
            Float8e4m3fn = 17, "FLOAT8E4M3FN";
            Float8e4m3fnuz = 18, "FLOAT8E4M3FNUZ";
            Float8e5m2 = 19, "FLOAT8E5M2";
            Float8e5m2fnuz = 20, "FLOAT8E5M2FNUZ";
            Uint4 = 21, "UINT4";
            Int4 = 22, "INT4";
            Float4e2m1 = 23, "FLOAT4E2M1";
        }
    }

    /// Where elements are.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
    #[repr(i32)]
    pub enum DataLocation {
        /// In the message.
        Default = 0,
        /// In another file.
        External = 1,
    }
}

/// Type of a value.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TypeProto {
    /// Which kind of type.
    #[prost(oneof = "type_proto::Value", tags = "1")]
    pub value: Option<type_proto::Value>,
    /// What it is in the world.
    #[prost(string, tag = "6")]
    pub denotation: String,
}

/// What belongs to [`TypeProto`].
pub mod type_proto {
    /// Type of a tensor.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Tensor {
        /// Type of an element, a `tensor_proto::DataType`.
        #[prost(int32, tag = "1")]
        pub elem_type: i32,
        /// Sizes; unknown if absent.
        #[prost(message, optional, tag = "2")]
        pub shape: Option<super::TensorShapeProto>,
    }

    /// The kinds of types that are known here.
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Value {
        /// A tensor.
        #[prost(message, tag = "1")]
        TensorType(Tensor),
    }
}

/// Sizes of a tensor.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TensorShapeProto {
    /// An entry for each axis.
    #[prost(message, repeated, tag = "1")]
    pub dim: Vec<tensor_shape_proto::Dimension>,
}

/// What belongs to [`TensorShapeProto`].
pub mod tensor_shape_proto {
    /// Size of an axis; unknown if it has no value.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Dimension {
        /// The size.
        #[prost(oneof = "dimension::Value", tags = "1, 2")]
        pub value: Option<dimension::Value>,
        /// What it is in the world.
        #[prost(string, tag = "3")]
        pub denotation: String,
    }

    /// What belongs to [`Dimension`].
    pub mod dimension {
        /// A number or a name.
        #[derive(Clone, PartialEq, prost::Oneof)]
        pub enum Value {
            /// A number.
            #[prost(int64, tag = "1")]
            DimValue(i64),
            /// A name; in our files an expression over names.
            #[prost(string, tag = "2")]
            DimParam(String),
        }
    }
}
